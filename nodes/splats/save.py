"""Nodes that write to disk."""

from comfy_api.latest import io

from ...comfyui_lyra.files.cameras.load import CAMERAS, FORMATS, save_cameras
from ...comfyui_lyra.files.splats.formats import UPS, WRITTEN, Up
from ...comfyui_lyra.files.splats.save import Placing
from ...comfyui_lyra.geometry.geometry import Geometry
from ...comfyui_lyra.shapes import plural
from ...comfyui_lyra.splats.gaussians import GaussianSequence
from ...comfyui_lyra.viewer.write import write_scene
from ..comfy import folders, progress
from ..comfy import types as sockets

SCALE = {"default": 1.0, "min": 0.0001, "max": 10000.0, "step": 0.01}
USUAL = "usual"
FORMS = {"options": list(WRITTEN), "default": "ply", "optional": True}
AXES = {"options": [USUAL, *UPS], "default": USUAL, "optional": True, "advanced": True}
SHOWN = ("ply", "spz")  # that core's viewer draws
FILES = {"json": CAMERAS, "transforms": "transforms.json"}  # in the folder, by format; the others make several


class SaveSplats(io.ComfyNode):
    """A file of splats in the output folder."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSaveSplats",
            display_name="Save Splats",
            category="Lyra/splat",
            description="Writes one scene into ComfyUI's output folder, for viewers, game engines and Preview Splat, "
            "as 3DGS PLY, SPZ, SOG, glTF or OpenUSD. Axes of PLY are those of 3DGS: x right, y down, z ahead.",
            search_aliases=["export ply", "export gaussian", "write splat", "3dgs", "spz", "sog", "gltf", "glb", "usd"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Splat.Input("splat", tooltip="One scene: a SPLAT with a single bullet time."),
                io.String.Input(
                    "filename_prefix",
                    default="3d/lyra",
                    tooltip="Folder and first part of the file name, below the output folder; a number follows.",
                ),
                io.Float.Input(
                    "scale",
                    **SCALE,
                    tooltip="Factor on positions and sizes, for instance metres per scene unit. 1 keeps scene units.",
                ),
                sockets.Geometry.Input(
                    "geometry",
                    optional=True,
                    tooltip="Multiply by this geometry's scale as well: back to the unit its depth came in (metres).",
                ),
                io.Combo.Input(
                    "format",
                    **FORMS,
                    tooltip="Form of the file. ply, glb and usdc lose nothing, spz and sog are small, html is a page "
                    "that shows the scene. spz and sog need gaussforge, usdc needs usd-core: the help page says how to "
                    "install them.",
                ),
                io.Combo.Input(
                    "up",
                    **AXES,
                    tooltip="Which way is up in the file. usual: y_down for ply and sog, as this pack has it; y_up for "
                    "the others. y_up is x right, z back; z_up is x right, y ahead.",
                ),
            ],
            outputs=[io.File3DPLY.Output("model_3d", tooltip="The saved file, for Preview Splat and others.")],
        )

    @classmethod
    def execute(cls, splat, filename_prefix, scale, geometry=None, format="ply", up=USUAL) -> io.NodeOutput:
        """Write the file."""
        gaussians = sockets.single(splat, "write all of them with Save Splat Sequence, or choose one")
        path, saved = folders.output_path(filename_prefix, WRITTEN[format].suffix)
        write_scene(path, GaussianSequence(frames=(gaussians,), times=(0,)), placing(scale, geometry, up))
        progress.show_text(
            cls, f"{len(gaussians):,} splats, {path.stat().st_size / 1e6:.1f} MB: {folders.below_output(path)}"
        )
        return io.NodeOutput(sockets.file_3d(path), ui={"3d": [saved]} if format in SHOWN else None)


class SaveCameraPaths(io.ComfyNode):
    """A folder of camera files in the output folder."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSaveCameraPaths",
            display_name="Save Camera Paths",
            category="Lyra/camera",
            description="Writes camera paths into a new folder of ComfyUI's output folder, for other programs: "
            "nerfstudio and Blender take transforms, COLMAP and splat trainers colmap, Lyra and GEN3C npz.",
            search_aliases=["export cameras", "colmap", "nerfstudio", "transforms.json", "blender camera"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Cameras.Input("cameras", tooltip="One path or several, each frame's camera with its lens."),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="json",
                    tooltip="json: this pack's, nothing is lost. transforms: nerfstudio's transforms.json. colmap: a "
                    "text model, cameras.txt and images.txt. npz: poses and lenses as Lyra's own programs read them.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="3d/lyra_cameras",
                    tooltip="Where the folder goes and how its name begins, below the output folder; a number follows.",
                ),
                io.Float.Input(
                    "scale",
                    **SCALE,
                    tooltip="Factor on positions, the same as in Save Splats. 1 keeps scene units.",
                ),
                sockets.Geometry.Input(
                    "geometry",
                    optional=True,
                    tooltip="Multiply by this geometry's scale as well: back to the unit its depth came in (metres).",
                ),
            ],
            outputs=[io.String.Output("folder", tooltip="The new folder, for Load Camera Paths.")],
        )

    @classmethod
    def execute(cls, cameras, format, filename_prefix, scale, geometry=None) -> io.NodeOutput:
        """Write the folder."""
        folder, _ = folders.output_path(filename_prefix, "")
        paths = [path.scaled(factor(scale, geometry)) for path in cameras]
        save_cameras(folder / FILES.get(format, ""), paths, kind=format)
        saved = folders.below_output(folder)
        text = f"{plural(len(cameras), 'path')} of {plural(len(cameras[0]), 'camera')}: {saved}"
        progress.show_text(cls, text)
        return io.NodeOutput(saved, ui={"text": (text,)})


def factor(scale: float, geometry: Geometry | None) -> float:
    """What the world is multiplied by: ``scale``, and the unit that the geometry's depth came in."""
    return scale if geometry is None else scale * geometry.scale


def placing(scale: float, geometry: Geometry | None, up: Up | str) -> Placing:
    """How splats are to be written; with a geometry in metres, if its depth was."""
    metres = 1 / scale if geometry and geometry.metric else None
    return Placing(scale=factor(scale, geometry), metres=metres, up=None if up == USUAL else up)
