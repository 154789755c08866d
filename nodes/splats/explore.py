"""The node that one walks in."""

from functools import partial

from comfy_api.latest import io
from torch import Tensor

from ...comfyui_lyra.cameras.moves import EASINGS
from ...comfyui_lyra.cameras.viewer import to_viewer
from ...comfyui_lyra.splats.gaussians import GaussianSequence
from ...comfyui_lyra.splats.render import RenderSettings, render
from ...comfyui_lyra.viewer.folder import SCENE, write_folder
from ...comfyui_lyra.viewer.scene import opening
from ...comfyui_lyra.viewer.state import view_of
from ...kernels_glue.rasterizer.projection import MODES
from ..camera.paths import FRAMES, SPEED
from ..comfy import devices, folders, progress
from ..comfy import types as sockets
from .render import SPLAT_BYTES


class ExploreSplats(io.ComfyNode):
    """A scene to walk in, still or moving."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraExploreSplats",
            display_name="Explore Splats",
            category="Lyra/splat",
            description="Shows splats, still or moving, to walk in: play, turn, set keyframes with K, ? for help. What "
            "is seen comes out as a picture and a camera, the keyframes as a path, for a film of your own.",
            search_aliases=["preview splat", "view gaussian", "walk", "4d player", "keyframes", "fly through"],
            is_output_node=True,
            inputs=[
                io.Splat.Input("splat", tooltip="A scene. Several bullet times are moments that can be played."),
                io.Float.Input(
                    "fps",
                    **SPEED,
                    tooltip="Frames per second of the clip that the bullet times count, and of the path.",
                ),
                io.Int.Input(
                    "frames",
                    **FRAMES,
                    tooltip="Frames of the path through the keyframes. With a teacher, the teacher's.",
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="smooth",
                    tooltip="smooth: curves with a gentle start and stop. linear: straight from key to key.",
                ),
                io.Color.Input("background", default="#ffffff", tooltip="Colour behind the splats, as #RRGGBB."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="ewa",
                    tooltip="How the picture is drawn. ewa: classic splatting, as in the view. ut_eval3d: 3DGUT, as "
                    "Lyra was trained, and as Render Splats draws.",
                    advanced=True,
                ),
                io.String.Input(
                    "state",
                    default="",
                    tooltip="What was done in the view, as JSON: camera, moment, keyframes. Empty: the first camera.",
                    advanced=True,
                ),
                sockets.Cameras.Input(
                    "cameras",
                    optional=True,
                    tooltip="Paths to fly along. The first camera of the first is where one stands, and its picture's "
                    "size in pixels is that of all outputs.",
                ),
                sockets.Teacher.Input(
                    "teacher",
                    optional=True,
                    tooltip="For Generate Latents: the path begins at the first camera, where the picture was taken, "
                    "and is as long as a clip of this teacher, in frames.",
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="What is seen, drawn by this pack's rasteriser."),
                io.Load3DCamera.Output("camera_info", tooltip="The camera of the view, for ComfyUI's 3D nodes."),
                sockets.Cameras.Output(
                    "cameras", tooltip="One path through the keyframes. Without any, it stands still at the view."
                ),
            ],
        )

    @classmethod
    def execute(cls, splat, fps, frames, easing, background, mode, state, cameras=(), teacher=None) -> io.NodeOutput:
        """Give the scene to the page, and draw what it says is seen."""
        moments, colour = sockets.from_splat(splat), sockets.rgb(background)
        times = sockets.times_of(splat) or tuple(range(len(moments)))
        start = opening(moments[0], cameras)
        view = view_of(state, start, len(moments))
        folder = write_folder(
            folders.views(), GaussianSequence(frames=moments, times=times), cameras, fps=fps, background=colour,
            on_step=progress.steps("pack"),
        )  # fmt: skip
        count = frames if teacher is None else teacher.config.trained_frames
        path = view.path(count, easing, fps, None if teacher is None else start)
        settings = RenderSettings(background=colour, mode=mode)
        shown = {"filename": SCENE, "subfolder": f"{folder.parent.name}/{folder.name}", "type": "temp"}
        image = sockets.to_image(draw(moments[view.moment], view.camera, settings))
        return io.NodeOutput(image, to_viewer(view.camera, 0), (path,), ui={"lyra_view": [shown]})


def draw(splats, camera, settings: RenderSettings) -> Tensor:
    """The one picture of a camera, [1, H, W, 3]."""
    device, store = devices.compute_device(), devices.intermediate_device()

    def attempt(size: int) -> Tensor:
        devices.make_room(size)
        return render(splats.to(device), camera.to(device), settings, store).rgb

    rooms = len(splats) * SPLAT_BYTES, devices.total_memory()
    return devices.first_that_fits(partial(attempt, room) for room in rooms)
