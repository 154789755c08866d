"""The node between Lyra's geometry and cameras, and core's samplers."""

from collections.abc import Sequence
from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ...comfyui_lyra.cameras.path import CameraTrajectory
from ...comfyui_lyra.configs import TeacherConfig
from ...comfyui_lyra.cost.report import generate_bytes
from ...comfyui_lyra.gen3c.text import TextEmbeddings, zero_text
from ...comfyui_lyra.geometry.geometry import Geometry
from ..comfy import devices, progress
from ..comfy import types as sockets
from ..comfy.patchers import Model
from ..comfy.tokenizers import tokenizer_of
from ..latents.generate import text_of
from .model import FIRST, WARP_LATENTS
from .teacher import gen3c_of


class GEN3CConditioning(io.ComfyNode):
    """What GEN3C is shown, for core's samplers."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraGEN3CConditioning",
            display_name="GEN3C Conditioning",
            category="Lyra/latents",
            description="Shows GEN3C what is known along each camera path, for KSampler and ComfyUI's other samplers. "
            "Behind it every node runs once for each path; Rebatch Latents and Latents from LATENT join them again.",
            search_aliases=["gen3c", "ksampler", "camera control", "image to video", "novel view", "lyra"],
            inputs=[
                io.Model.Input("model", tooltip="Load Teacher's model, or GEN3C from Load Diffusion Model."),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    tooltip="From Load Tokenizer, or Cosmos' VAE from Load VAE.",
                ),
                sockets.Geometry.Input(
                    "geometry", tooltip="The picture or clip with its depth; cropped to the teacher's size."
                ),
                sockets.Cameras.Input(
                    "cameras",
                    tooltip="Paths made from this geometry, of one of the teacher's clips: 121 frames, 17 for mini. "
                    "Longer ones are Generate Latents' work.",
                ),
                io.Boolean.Input(
                    "foreground_masking",
                    default=True,
                    tooltip="Hide background that shows through gaps of the stretched foreground.",
                    advanced=True,
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="A prompt, from CLIP Text Encode with the old T5 XXL (CLIP loader, type cosmos). Lyra "
                    "works without.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to avoid, from CLIP Text Encode. Without it, the prompt stands on both sides.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive", is_output_list=True, tooltip="One for each path: text, picture and what is known."
                ),
                io.Conditioning.Output(
                    "negative",
                    is_output_list=True,
                    tooltip="One for each path, without what is known. No other may stand in for it.",
                ),
                io.Latent.Output(
                    "latent", is_output_list=True, tooltip="One for each path, empty and of the teacher's size."
                ),
                sockets.Cameras.Output("cameras", tooltip="The paths at the teacher's size, for Latents from LATENT."),
            ],
        )

    @classmethod
    def execute(
        cls, model, tokenizer, geometry, cameras, foreground_masking, positive=None, negative=None
    ) -> io.NodeOutput:
        """Draw and encode, path after path."""
        from ...comfyui_lyra.gen3c.requirements import check_inputs
        from ...comfyui_lyra.geometry.fit import fitted

        config, tokenizer = gen3c_of(model).teacher_config, tokenizer_of(tokenizer)
        geometry, paths = fitted(geometry, cameras, *config.trained_size)
        text = text_of(positive, negative, config) or zero_text(config)
        if len(check_inputs(config, tokenizer.network, geometry, paths, text, True)) > 1:
            raise ValueError(
                f"these paths have {len(paths[0])} frames, more than one clip of {config.trained_frames}; a sampler "
                "makes one clip: shorten the paths, or use Generate Latents"
            )
        first, warps = shown(tokenizer, config, geometry, paths, foreground_masking)
        conditions = [conditioning(text, first, warp, config) for warp in warps]
        empty = [torch.zeros(1, *config.latent_shape, device=first.device) for _ in paths]
        return io.NodeOutput(
            [positive for positive, _ in conditions],
            [negative for _, negative in conditions],
            [{"samples": latent} for latent in empty],
            tuple(paths),
        )


def shown(
    tokenizer: Model,
    config: TeacherConfig,
    geometry: Geometry,
    paths: Sequence[CameraTrajectory],
    foreground_masking: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Latent [1, 16, 1, h, w] of the picture, and [1, 64, T, h, w] of what is known along each path, between nodes."""
    from ...comfyui_lyra.gen3c.cache.cache3d import Cache3D
    from ...comfyui_lyra.gen3c.sampler import compose_warp_latents
    from ...comfyui_lyra.geometry.fit import condition_frame
    from ...comfyui_lyra.tokenizer.clips import encode_clip

    size = generate_bytes(config, tokenizer.config, len(geometry.frames), False, tokenizer.dtype)
    devices.load(tokenizer, size=size)
    on_step, out = progress.steps("gen3c conditioning"), devices.intermediate_device()
    geometry, encode = geometry.to(devices.compute_device()), partial(encode_clip, tokenizer.network)
    first, cache, warps = encode(condition_frame(geometry)), Cache3D.of(geometry), []
    for done, path in enumerate(paths, start=1):
        drawn = cache.render(path, foreground_masking)
        warps.append(compose_warp_latents(encode, drawn.pixels[None], drawn.masks[None]).float().to(out))
        on_step(done, len(paths))
    return first.float().to(out), warps


def conditioning(text: TextEmbeddings, first: Tensor, warps: Tensor, config: TeacherConfig) -> tuple[list, list]:
    """Core's positive and negative CONDITIONING of a path; they differ in the text, and in the warps."""
    shared = {FIRST: first, "frame_rate": config.fps}
    return [[text.prompt, shared | {WARP_LATENTS: warps}]], [[text.negative, shared]]
