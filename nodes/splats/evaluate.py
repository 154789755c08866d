"""The node that says how near renders are to what they should show."""

import math
from collections.abc import Sequence

from comfy_api.latest import io, ui

from ...comfyui_lyra.cost.report import decode_bytes
from ...comfyui_lyra.quality.perceptual import Perceptual, load_lpips
from ..comfy import devices, folders, progress
from ..comfy import types as sockets
from ..comfy.patchers import Model
from ..comfy.tokenizers import tokenizer_of
from .render import SPLAT_BYTES


class Evaluate(io.ComfyNode):
    """Scores of frames, or of splats."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraEvaluate",
            display_name="Evaluate Splats",
            category="Lyra/splat",
            description="Scores how near frames are to what they should show, and shows where they are not: two "
            "batches of frames, or splats against the latents that they were made from.",
            search_aliases=["psnr", "ssim", "lpips", "metrics", "compare images", "difference", "quality"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "frames", optional=True, tooltip="Frames to score, such as those of Render Splats. Needs truth too."
                ),
                io.Image.Input(
                    "truth",
                    optional=True,
                    tooltip="What the frames should show: as many pictures, in the same order. Another size is cropped "
                    "and resized to theirs.",
                ),
                io.Splat.Input(
                    "splat",
                    optional=True,
                    tooltip="Instead of frames: splats to score along the paths of their latents. Needs cameras, "
                    "latents and tokenizer too.",
                ),
                sockets.Cameras.Input(
                    "cameras", optional=True, tooltip="The paths in the splats' world, from Reconstruct Splats."
                ),
                sockets.Latents.Input(
                    "latents", optional=True, tooltip="What the splats were made from: their frames are the truth."
                ),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    optional=True,
                    tooltip="From Load Tokenizer, or Cosmos' VAE. Decodes the latents, and adds TPIPS: a distance as "
                    "the tokenizer sees it, 0 for equal pictures. Its numbers are not those of LPIPS.",
                ),
                io.Int.Input(
                    "every",
                    display_name="every nth frame",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Of splats of a still scene: score every nth frame of each path. 1 scores all. Batches of "
                    "frames are scored whole.",
                ),
                io.Float.Input(
                    "gain",
                    display_name="error brightness",
                    default=4.0,
                    min=1.0,
                    max=100.0,
                    step=0.5,
                    tooltip="How many times as bright as it is the error is shown.",
                ),
                io.String.Input(
                    "times",
                    display_name="bullet times",
                    default="",
                    tooltip="For splats of a moving scene: the frame of each. Empty: those that came with the splats "
                    "from Reconstruct Splats.",
                ),
                io.String.Input(
                    "lpips_vgg",
                    display_name="LPIPS VGG16 file",
                    default="",
                    tooltip="Adds LPIPS. Your file of VGG16 (torchvision's vgg16-397923af.pth, or a whole saved LPIPS "
                    "model): its name below models/lyra, or its whole path. Empty: no LPIPS.",
                    advanced=True,
                ),
                io.String.Input(
                    "lpips_heads",
                    display_name="LPIPS heads file",
                    default="",
                    tooltip="The lpips package's weights/v0.1/vgg.pth, likewise. Empty where the first holds both.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Image.Output("error", tooltip="Difference of each frame to the truth: black is none."),
                io.Float.Output("psnr", display_name="PSNR", tooltip="In dB, mean over the frames: more is better."),
                io.Float.Output("ssim", display_name="SSIM", tooltip="Mean over the frames, 1 for equal pictures."),
                io.Float.Output(
                    "tpips",
                    display_name="TPIPS",
                    tooltip="Mean over the frames, less is better; nan without tokenizer.",
                ),
                io.Float.Output(
                    "lpips",
                    display_name="LPIPS",
                    tooltip="Mean over the frames, less is better; nan without its files.",
                ),
                io.String.Output("text", tooltip="The scores in words, and which frame is worst."),
            ],
        )

    @classmethod
    def execute(
        cls, every, gain, times, lpips_vgg, lpips_heads,
        frames=None, truth=None, splat=None, cameras=None, latents=None, tokenizer=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Compare what is connected."""
        from ...comfyui_lyra.quality.compare import compare_bytes, compare_frames, compare_splats

        tokenizer = tokenizer and tokenizer_of(tokenizer)
        whole = is_splats(
            frames=frames, truth=truth, splat=splat, cameras=cameras, latents=latents, tokenizer=tokenizer
        )
        size = (latents.cameras[0].height, latents.cameras[0].width) if whole else frames.shape[1:3]
        make_ready(tokenizer, compare_bytes(*size, bool(lpips_vgg.strip())), size, splat if whole else None)
        shared = {
            "perceptual": judges(tokenizer, lpips_vgg, lpips_heads),
            "device": devices.compute_device(),
            "on_step": progress.steps("evaluate"),
        }
        if whole:
            given = sockets.from_splat(splat), cameras, latents, tokenizer.network
            found = compare_splats(*given, times=sockets.times_of(splat, times) or None, every=every, **shared)
        else:
            found = compare_frames(sockets.from_image(frames), sockets.from_image(truth), **shared)
        error, means, text = sockets.to_image(found.picture(gain)), found.means, found.report()
        progress.show_text(cls, text)
        scores = (means.get(name, math.nan) for name in ("psnr", "ssim", "tpips", "lpips"))
        shown = ui.PreviewImage(error[found.worst][None], cls=cls).as_dict() | {"text": (text,)}
        return io.NodeOutput(error, *scores, text, ui=shown)


def make_ready(tokenizer: Model | None, size: int, shape: Sequence[int], splat) -> None:
    """Room on the device for ``size`` bytes of scoring, for drawing the splats, and for decoding pictures [H, W]."""
    if splat is not None:
        size += splat.positions.shape[1] * SPLAT_BYTES
    if tokenizer is None:
        devices.make_room(size)
    else:
        devices.load(tokenizer, size=max(size, decode_bytes(tokenizer.config, *shape, tokenizer.dtype)))


def is_splats(frames, truth, **given) -> bool:
    """Whether splats are to be scored, or frames; ValueError where neither is complete."""
    pictures, missing = (frames, truth), [name for name, value in given.items() if value is None]
    if given["splat"] is None and all(clip is not None for clip in pictures):
        return False
    if not missing and all(clip is None for clip in pictures):
        return True
    if given["splat"] is not None and missing:
        raise ValueError(f"to score splats, connect {', '.join(missing)} too; or two batches, frames and truth")
    raise ValueError("connect either frames and truth, or splat, cameras, latents and tokenizer")


def judges(tokenizer: Model | None, vgg: str, heads: str) -> list[Perceptual]:
    """The networks whose distances are asked for, on the compute device."""
    from ...comfyui_lyra.quality.compare import GridTpips

    found = [GridTpips(tokenizer.network)] if tokenizer else []
    if vgg.strip():
        files = [folders.weights_path(name) for name in (vgg, heads) if name.strip()]
        found.append(load_lpips(*files, largest=None).to(devices.compute_device()))
    return found
