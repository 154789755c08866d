"""Nodes that read from disk."""

from comfy_api.latest import io

from ...comfyui_lyra.files.cameras.load import load_cameras
from ...comfyui_lyra.files.splats.formats import READ
from ...comfyui_lyra.files.splats.load import load_splats
from ...comfyui_lyra.shapes import plural
from ...comfyui_lyra.splats.demo_scene import demo_scene
from ..comfy import folders, hooks, progress
from ..comfy import types as sockets

DEMO = "demo scene"  # made by formula, so that a workflow runs before any file is there


class LoadSplats(io.ComfyNode):
    """Splats from a file."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadSplats",
            display_name="Load Splats",
            category="Lyra/splat",
            description="Reads Gaussian splats from a file in input/3d or output/3d, or from a connected 3D file: any "
            "3DGS PLY with harmonics up to degree 3, SuperSplat's compressed form, SPZ, SOG and .splat.",
            search_aliases=["open ply", "import gaussian", "3dgs", "gaussian splatting", "read splat", "spz", "sog"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[DEMO, *folders.saved_files("3d", READ)],
                    default=DEMO,
                    tooltip="Splats in the folder 3d of ComfyUI's input or output. The demo scene needs no file.",
                ),
                io.MultiType.Input(
                    "model_3d",
                    types=[io.File3DAny, io.File3DSplatAny, io.File3DPLY, io.File3DSPZ, io.File3DSPLAT],
                    optional=True,
                    tooltip="Splats from another node, for instance Load 3D; they go before the file above.",
                ),
            ],
            outputs=[io.Splat.Output("splat", tooltip="One scene.")],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        """Say before the run that the file is missing."""
        return file == DEMO or hooks.is_there(folders.saved_path, file)

    @classmethod
    def fingerprint_inputs(cls, file=None, *_, **__):
        """Read again when the file has changed."""
        return file if file == DEMO else hooks.state_of(folders.saved_path, file)

    @classmethod
    def execute(cls, file, model_3d=None) -> io.NodeOutput:
        """Read the splats."""
        if model_3d is not None:
            gaussians = load_splats(*sockets.splats_of(model_3d))
        else:
            gaussians = demo_scene() if file == DEMO else load_splats(folders.saved_path(file))
        return io.NodeOutput(sockets.to_splat([gaussians]))


class LoadCameraPaths(io.ComfyNode):
    """Camera files."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadCameraPaths",
            display_name="Load Camera Paths",
            category="Lyra/camera",
            description="Reads camera paths: this pack's JSON, the reference's folder of npz poses, a nerfstudio "
            "transforms.json or COLMAP text.",
            search_aliases=["import cameras", "colmap", "nerfstudio", "transforms.json", "npz poses"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.String.Input(
                    "path",
                    default="cameras.json",
                    tooltip="File or folder: below ComfyUI's input or output folder, or with its whole path.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Picture width in pixels, for npz files that lie beside no video. 0: as the files say.",
                    advanced=True,
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Picture height in pixels, for npz files that lie beside no video. 0: as the files say.",
                    advanced=True,
                ),
                io.String.Input(
                    "clip",
                    default="",
                    tooltip="Name of one clip in a folder of npz files that holds several. Empty: the only one.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Cameras.Output("cameras", tooltip="Every path of the file.")],
        )

    @classmethod
    def validate_inputs(cls, path=None):
        """Say before the run that the file is missing."""
        return hooks.is_there(folders.saved_path, path)

    @classmethod
    def fingerprint_inputs(cls, path=None, *_, **__):
        """Read again when the files have changed."""
        return hooks.state_of(folders.saved_path, path)

    @classmethod
    def execute(cls, path, width, height, clip) -> io.NodeOutput:
        """Read the paths."""
        size = (height, width) if width and height else None
        with progress.warnings() as warnings:
            paths = load_cameras(folders.saved_path(path), clip=clip.strip() or None, size=size)
        progress.show_text(cls, "\n".join([plural(len(paths), "path"), *warnings]))
        return io.NodeOutput(paths)
