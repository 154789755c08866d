"""The node that reads ViPE's results."""

from pathlib import Path

from comfy_api.latest import io

from ...comfyui_lyra.geometry.fit import fit as fit_to
from ...comfyui_lyra.geometry.fit import meant_for
from ...comfyui_lyra.geometry.geometry import FITS, SCALES
from ...comfyui_lyra.sources.geometry import from_vipe
from ..camera.paths import FRAMES, PIXELS
from ..comfy import folders, hooks, progress
from ..comfy import types as sockets
from .sources import shown


class LoadViPE(io.ComfyNode):
    """A clip that ViPE has measured."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadViPE",
            display_name="Load ViPE Results",
            category="Lyra/geometry",
            description="Reads a clip with the cameras and depth that NVIDIA's ViPE has found in it: the folder that "
            "'vipe infer VIDEO -p lyra --output FOLDER' writes.",
            search_aliases=["vipe", "video geometry", "camera poses", "import video depth", "4d"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.String.Input(
                    "path",
                    default="vipe_results",
                    tooltip="ViPE's folder, or one of the clips in its folder rgb: below ComfyUI's input folder, or "
                    "with its whole path.",
                ),
                io.Int.Input("start", default=0, min=0, max=1000000, tooltip="First frame to read; 0 is the first."),
                io.Int.Input(
                    "frames",
                    **FRAMES,
                    tooltip="Frames to read. Lyra's released models take 121; a clip that ends earlier repeats its "
                    "last one.",
                ),
                io.Int.Input(
                    "width",
                    default=1280,
                    **PIXELS,
                    tooltip="Width in pixels of paths and previews: 1280 for Lyra, 160 for the mini models. The "
                    "frames keep their size until Generate Latents fits them to the teacher.",
                ),
                io.Int.Input(
                    "height",
                    default=704,
                    **PIXELS,
                    tooltip="Height in pixels of paths and previews: 704 for Lyra, 96 for the mini models.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default="crop",
                    tooltip="crop: cut the largest centred part of that shape. reference: squash a little, then cut, "
                    "as Lyra's own programs do.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default="auto",
                    tooltip="auto: divide depth and camera positions by the first frame's median depth, so that camera "
                    "moves fit the scene. as_is: keep ViPE's unit.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "strict",
                    default=False,
                    tooltip="Stop at a frame whose camera ViPE has lost. Off: its neighbour's camera stands in.",
                    advanced=True,
                ),
            ],
            outputs=[
                sockets.Geometry.Output("geometry", tooltip="The frames with depth and cameras."),
                io.Image.Output("image", tooltip="The frames."),
            ],
        )

    @classmethod
    def validate_inputs(cls, path=None):
        """Say before the run that the folder is missing."""
        return hooks.is_there(folders.input_path, path)

    @classmethod
    def fingerprint_inputs(cls, path=None, *_, **__):
        """Read again when the files have changed."""
        return hooks.state_of(folders.input_path, path, state_of_results)

    @classmethod
    def execute(cls, path, start, frames, width, height, fit, scale, strict) -> io.NodeOutput:
        """Read the clip."""
        with progress.warnings() as warnings:
            geometry = from_vipe(folders.input_path(path), start, frames, strict=strict, scale=scale)
            geometry = meant_for(geometry, height, width, fit)
        frames = sockets.to_image(fit_to(geometry, height, width).frames)
        return io.NodeOutput(shown(cls, geometry, warnings), frames)


def state_of_results(path: Path) -> str:
    """Changes with the files of ViPE's folder, of which a clip's file may stand for all."""
    root = path.parent.parent if path.is_file() else path
    return " ".join(folders.fingerprint(folder) for folder in sorted(root.glob("*/")))
