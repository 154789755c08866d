"""Nodes between latents, files, frames and core's LATENT."""

from functools import partial

from comfy_api.latest import io
from torch import Tensor

from ...comfyui_lyra.cost.report import decode_bytes
from ...comfyui_lyra.files.scenes.scene import load_scene, save_scene
from ...comfyui_lyra.shapes import plural
from ...comfyui_lyra.tokenizer.streaming import CHUNK
from ..comfy import devices, folders, hooks, progress
from ..comfy import types as sockets
from ..comfy.tokenizers import tokenizer_of


class LoadLatents(io.ComfyNode):
    """Latents of several paths, from disk."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadLatents",
            display_name="Load Latents",
            category="Lyra/latents",
            description="Reads the latents of a scene with their cameras: what Generate Latents or Save Latents wrote, "
            "or a folder of Lyra's own generated data.",
            search_aliases=["sdg", "import latents", "lyra dataset", "open latents", "pkl"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.String.Input(
                    "path",
                    default="mini/latents",
                    tooltip="Folder, or .safetensors file: below ComfyUI's input or output folder, or with its whole "
                    "path. mini/latents comes with the pack.",
                ),
                io.String.Input(
                    "clip",
                    default="",
                    tooltip="Name of one clip in a folder that holds several. Empty: the only one.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "dynamic",
                    default=False,
                    tooltip="For Lyra's own folders, which do not say it: the source was a moving scene. Files of this "
                    "pack know it themselves.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Latents.Output("latents", tooltip="All paths, with their cameras.")],
        )

    @classmethod
    def validate_inputs(cls, path=None):
        """Say before the run that the folder is missing."""
        return hooks.is_there(folders.saved_path, path)

    @classmethod
    def fingerprint_inputs(cls, path=None, *_, **__):
        """Read again when the files have changed."""
        return hooks.state_of(folders.saved_path, path)

    @classmethod
    def execute(cls, path, clip, dynamic) -> io.NodeOutput:
        """Read the latents."""
        with progress.warnings() as warnings:
            latents = load_scene(folders.saved_path(path), clip.strip() or None, dynamic=dynamic)
        progress.show_text(cls, "\n".join([plural(len(latents.cameras), "path"), *warnings]))
        return io.NodeOutput(latents)


class SaveLatents(io.ComfyNode):
    """Latents of several paths, to disk."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSaveLatents",
            display_name="Save Latents",
            category="Lyra/latents",
            description="Writes latents and cameras as a folder in the layout of Lyra's generated data, one folder a "
            "path. Load Latents reads it again.",
            search_aliases=["sdg", "export latents", "lyra dataset", "store latents", "pkl"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Latents.Input("latents", tooltip="The latents to write, with their cameras."),
                io.String.Input(
                    "filename_prefix",
                    default="lyra/latents",
                    tooltip="Where the folder goes and how its name begins, below the output folder; a number follows.",
                ),
                io.String.Input(
                    "clip",
                    default="clip",
                    tooltip="Name of the scene's files inside the folder.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "reference_format",
                    default=False,
                    tooltip="Write the latents also as Lyra's own programs read them (.pkl), about as large again.",
                    advanced=True,
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, latents, filename_prefix, clip, reference_format) -> io.NodeOutput:
        """Write the folder."""
        folder, _ = folders.output_path(filename_prefix, "")
        save_scene(folder, clip, latents, reference_format=reference_format)
        text = f"{plural(len(latents.cameras), 'path')}: {folders.below_output(folder)}"
        progress.show_text(cls, text)
        return io.NodeOutput(ui={"text": (text,)})


class LatentsToCore(io.ComfyNode):
    """Our latents as core's."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLatentsToCore",
            display_name="Latents to LATENT",
            category="Lyra/latents",
            description="Hands the latents to core's nodes as a LATENT of Cosmos video, one batch item a path. Their "
            "cameras go alongside.",
            search_aliases=["convert latent", "cosmos latent", "vae decode latents"],
            inputs=[sockets.Latents.Input("latents", tooltip="The latents to hand over.")],
            outputs=[
                io.Latent.Output(
                    "latent", tooltip="For core's VAE Decode with Cosmos' VAE, Latent From Batch, others."
                ),
                sockets.Cameras.Output("cameras", tooltip="The path of each batch item."),
            ],
        )

    @classmethod
    def execute(cls, latents) -> io.NodeOutput:
        """Take the latents apart."""
        return io.NodeOutput(sockets.to_latent(latents), latents.cameras)


class LatentsFromCore(io.ComfyNode):
    """Core's latents as ours."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLatentsFromCore",
            display_name="Latents from LATENT",
            category="Lyra/latents",
            description="Makes latents for Reconstruct Splats of core's LATENT of Cosmos video and the camera paths "
            "that its clips were filmed along, one batch item a path.",
            search_aliases=["convert latent", "cosmos latent", "vae encode video"],
            inputs=[
                io.Latent.Input("latent", tooltip="Video latents of Cosmos, for instance from core's VAE Encode."),
                sockets.Cameras.Input("cameras", tooltip="The path of each batch item, of the same frames and size."),
                io.Boolean.Input(
                    "dynamic", default=False, tooltip="The clips show a moving scene, all at the same moments."
                ),
                io.String.Input(
                    "family",
                    default="lyra",
                    tooltip="Which models the latents fit: lyra for Cosmos CV8x8x8, mini for this pack's small ones.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Latents.Output("latents", tooltip="The latents with their cameras.")],
        )

    @classmethod
    def execute(cls, latent, cameras, dynamic, family) -> io.NodeOutput:
        """Put the latents together."""
        return io.NodeOutput(sockets.from_latent(latent, cameras, family, dynamic))


class DecodeLatents(io.ComfyNode):
    """Frames of one path."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraDecodeLatents",
            display_name="Decode Latents to Frames",
            category="Lyra/latents",
            description="Turns the latents of one camera path back into its frames: what the splats are made from, "
            "beside which their renders can be laid.",
            search_aliases=["vae decode", "latents to video", "latents to images"],
            inputs=[
                sockets.Latents.Input("latents", tooltip="The latents of all paths."),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    tooltip="From Load Tokenizer, or Cosmos' VAE from Load VAE.",
                ),
                io.Int.Input("view", default=0, min=0, max=99, tooltip="Which path to decode; 0 is the first."),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The path's frames."),
                io.Float.Output("fps", tooltip="Playback speed in frames per second, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, latents, tokenizer, view) -> io.NodeOutput:
        """Decode one view; where memory runs out, again with less of it at once."""
        from ...comfyui_lyra.tokenizer.clips import decode  # deferred: brings diffusers, whose import takes seconds

        model, path = tokenizer_of(tokenizer), sockets.chosen(latents.cameras, view)

        def attempt(at_once: int) -> Tensor:
            devices.load(model, size=decode_bytes(model.config, path.height, path.width, model.dtype))
            return decode(model.network, latents, view, at_once=at_once)

        frames = devices.first_that_fits(partial(attempt, count) for count in (CHUNK, 1))
        return io.NodeOutput(sockets.to_image(frames), path.fps)
