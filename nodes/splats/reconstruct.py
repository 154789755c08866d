"""Nodes from latents to splats."""

from functools import partial

from comfy_api.latest import io

from ...comfyui_lyra.cost.recon import bytes_needed, count_tokens, schedules
from ...comfyui_lyra.cost.report import encode_bytes
from ...comfyui_lyra.recon.reconstruct import reconstruct
from ...comfyui_lyra.recon.schedule import DEFAULT
from ...comfyui_lyra.recon.times import format_times, parse_times
from ..comfy import devices, progress
from ..comfy import types as sockets
from ..comfy.tokenizers import encoded_by, tokenizer_of


class Reconstruct(io.ComfyNode):
    """Splats of a scene, or of its moments."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraReconstruct",
            display_name="Reconstruct Splats",
            category="Lyra/splat",
            description="Fuses the latents of several camera paths into Gaussian splats: one scene, or with a dynamic "
            "splat decoder one for each moment asked for.",
            search_aliases=["latents to 3d", "lyra", "3dgs", "4d", "bullet time", "gaussian splatting"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Recon.Input("recon", tooltip="From Load Splat Decoder."),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    tooltip="From Load Tokenizer, or Cosmos' VAE from Load VAE. It encodes the cameras.",
                ),
                sockets.Latents.Input("latents", tooltip="Latents of the paths, from Generate or Load Latents."),
                io.String.Input(
                    "times",
                    display_name="bullet times",
                    default="0",
                    tooltip="Frames of the clip at which a moving scene stands still, such as 0, 60, 120, or 0-120/8 "
                    "for every eighth. A static splat decoder makes one scene and ignores them.",
                ),
                io.Float.Input(
                    "keep",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the splats that are kept, the most opaque ones. 0: what the splat decoder was "
                    "made for (0.2).",
                    advanced=True,
                ),
                io.Int.Input(
                    "chunk",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Which part of a long clip that was generated in several; 0 is the first. Bullet times "
                    "count from its beginning.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Splat.Output("splat", tooltip="One scene for each bullet time."),
                sockets.Cameras.Output("cameras", tooltip="The latents' paths in the world of the splats, to render."),
                io.String.Output("times", display_name="bullet times", tooltip="The frame of each scene."),
            ],
        )

    @classmethod
    def execute(cls, recon, tokenizer, latents, times, keep, chunk) -> io.NodeOutput:
        """Reconstruct; where memory runs out, again in smaller pieces."""
        latents = latents.chunk(chunk) if chunk or latents.chunks > 1 else latents
        tokenizer, path = tokenizer_of(tokenizer), latents.cameras[0]
        moments = parse_times(times) if recon.config.dynamic else (0,)
        shape = len(latents.cameras), len(path), path.height, path.width
        counts = count_tokens(recon.config, *shape)
        needed = bytes_needed(recon.config, shape[0], *counts, DEFAULT.segment, recon.dtype)
        devices.load(recon, tokenizer, size=max(needed, encode_bytes(tokenizer.config, *shape[1:], tokenizer.dtype)))
        run = partial(
            reconstruct, recon.network, tokenizer.network, latents, moments, keep=keep or None,
            cache=encoded_by(tokenizer), store=devices.intermediate_device(), on_step=progress.steps("reconstruct"),
        )  # fmt: skip
        tries = schedules(recon.config, *shape, devices.free_memory(), recon.dtype)
        with progress.warnings() as warnings:
            splats, cameras = devices.first_that_fits(partial(run, schedule=schedule) for schedule in tries)
        progress.show_text(cls, "\n".join([f"{len(splats)} x {len(splats.frames[0]):,} splats", *warnings]))
        return io.NodeOutput(sockets.to_splat(splats.frames, splats.times), cameras, format_times(splats.times))


class SelectTime(io.ComfyNode):
    """One scene of several."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSelectTime",
            display_name="Select Bullet Time",
            category="Lyra/splat",
            description="Takes one scene out of a SPLAT with several bullet times, for nodes that take one.",
            search_aliases=["choose frame", "splat from batch", "pick time", "4d"],
            inputs=[
                io.Splat.Input("splat", tooltip="Scenes of several bullet times."),
                io.Int.Input(
                    "index", default=0, min=0, max=9999, tooltip="Which scene, in their order; 0 is the first."
                ),
            ],
            outputs=[io.Splat.Output("splat", tooltip="The one scene.")],
        )

    @classmethod
    def execute(cls, splat, index) -> io.NodeOutput:
        """Take one."""
        return io.NodeOutput(
            sockets.to_splat([sockets.moment(splat, index)], sockets.times_of(splat)[index : index + 1])
        )
