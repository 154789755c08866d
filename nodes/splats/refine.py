"""The node that makes splats sharper."""

from functools import partial

from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...comfyui_lyra.cost.report import decode_bytes
from ...comfyui_lyra.files.media.images import to_bytes
from ...comfyui_lyra.refine.schedule import settings_for
from ..comfy import devices, progress
from ..comfy import types as sockets
from ..comfy.tokenizers import tokenizer_of

SPLAT_BYTES = 4 << 10  # of working memory a splat: drawing takes 3 KB, its gradients and Adam's sums the rest
PREVIEW_SIZE = 1024  # most pixels a side


class RefineSplats(io.ComfyNode):
    """Splats that show what they were made from."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraRefineSplats",
            display_name="Refine Splats",
            category="Lyra/splat",
            description="Makes splats sharper in seconds: moves them a little until they show the teacher's frames and "
            "the picture itself. Cancel keeps what there is and goes on with it; cancel again to stop the workflow.",
            search_aliases=["sharpen", "optimize splats", "gaussian splatting training", "fit", "post-optimization"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Splat.Input("splat", tooltip="From Reconstruct Splats: one scene, or one for each moment."),
                sockets.Cameras.Input("cameras", tooltip="From Reconstruct Splats: the paths in the splats' world."),
                sockets.Latents.Input("latents", tooltip="What the splats were made from."),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    tooltip="From Load Tokenizer, or Cosmos' VAE from Load VAE. It decodes the latents.",
                ),
                sockets.Geometry.Input(
                    "geometry",
                    optional=True,
                    tooltip="The picture or clip that the latents were generated from: sharper than the teacher's "
                    "frames, and held exactly. Most of the gain comes from it.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Steps of each scene. 0: what suits the device, 300 with gsplat on a GPU, 100 without. "
                    "Many more begin to copy the teacher's mistakes.",
                ),
                io.Float.Input(
                    "seconds",
                    default=60.0,
                    min=0.0,
                    max=100000.0,
                    step=1.0,
                    tooltip="Stop after so many seconds of optimisation, for all scenes together. 0: only the steps "
                    "count.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate="fixed",
                    tooltip="Of the order in which frames are looked at.",
                    advanced=True,
                ),
                io.String.Input(
                    "times",
                    display_name="bullet times",
                    default="",
                    tooltip="For splats of a moving scene: the frame of each. Empty: those that came with the splats "
                    "from Reconstruct Splats.",
                ),
            ],
            outputs=[
                io.Splat.Output("splat", tooltip="As many splats, sharper."),
                io.String.Output("text", tooltip="PSNR before and after, in dB: more is better."),
            ],
        )

    @classmethod
    def execute(cls, splat, cameras, latents, tokenizer, steps, seconds, seed, times, geometry=None) -> io.NodeOutput:
        """Refine each scene; where memory runs out, again with the device for this alone."""
        from ...comfyui_lyra.pipeline import refine  # deferred: brings diffusers, seconds

        model, path, device = tokenizer_of(tokenizer), cameras[0], devices.compute_device()
        scenes, watch = sockets.from_splat(splat), Watch()
        moments = moments_of(splat, times, latents.dynamic)
        settings = settings_for(device, path.height * path.width, steps=steps, seconds=seconds, seed=seed)
        run = partial(
            refine, cameras=cameras, latents=latents, tokenizer=model.network, geometry=geometry, settings=settings,
            times=moments, on_step=watch.on_step, on_picture=watch.on_picture,
            enough=watch.enough,
        )  # fmt: skip

        def attempt(size: int):
            devices.load(model, size=size)
            return run([scene.to(device) for scene in scenes])

        needed = decode_bytes(model.config, path.height, path.width, model.dtype)
        needed = max(needed, SPLAT_BYTES * max(len(scene) for scene in scenes))
        refined = devices.first_that_fits(partial(attempt, size) for size in (needed, devices.total_memory()))
        text = "\n".join([refined.report(), *watch.notes(settings.shrink)])
        progress.show_text(cls, text)
        return io.NodeOutput(sockets.to_splat(refined.splats, moments), text)


def moments_of(splat, written: str, is_moving: bool) -> tuple[int, ...]:
    """The bullet times of the scenes; a still scene has one."""
    if not is_moving:
        return (0,)
    if not (times := sockets.times_of(splat, written)):
        raise ValueError(
            "these latents show a moving scene, and the splats do not say of which frames; connect the bullet times of "
            "Reconstruct Splats too"
        )
    return times


class Watch:
    """Callbacks for ``refine``: a bar, a frame beside what it should be, and cancelling, which ends it early."""

    def __init__(self):
        self._bar, self._preview, self._cancelled = progress.bar(), None, False

    def on_step(self, done: int, total: int) -> None:
        """A step is done."""
        preview, self._preview = self._preview, None
        self._bar.update_absolute(done, total, preview)

    def on_picture(self, picture: Tensor) -> None:
        """A frame [H, W, 3] as it is, beside what it should be."""
        self._preview = ("JPEG", Image.fromarray(to_bytes(picture)), PREVIEW_SIZE)

    def enough(self) -> bool:
        """Whether the user has cancelled."""
        self._cancelled = self._cancelled or progress.cancelled()
        return self._cancelled

    def notes(self, shrink: int) -> list[str]:
        """What a user should know of the run."""
        early = ["cancelled: this is what there was"] * self._cancelled
        return early + [f"without gsplat: frames compared at 1/{shrink} of their size, in few steps"] * (shrink > 1)
