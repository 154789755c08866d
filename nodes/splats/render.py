"""Nodes that draw splats and take some away."""

from collections.abc import Iterator
from functools import partial

from comfy_api.latest import io
from torch import Tensor

from ...comfyui_lyra.cameras.sets import end_to_end
from ...comfyui_lyra.splats.crop import crop
from ...comfyui_lyra.splats.render import Frames, RenderSettings, depth_view, render
from ...kernels_glue.rasterizer.projection import MODES
from ...kernels_glue.rasterizer.rasterize import rasterize
from ..comfy import devices, progress
from ..comfy import types as sockets

SPLAT_BYTES = 3 << 10  # of working memory a splat: the rasteriser's budget is 6 GB for 2 million


class RenderSplats(io.ComfyNode):
    """Frames along camera paths."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraRenderSplats",
            display_name="Render Splats",
            category="Lyra/splat",
            description="Draws splats once for each camera of the paths. Uses gsplat where it is installed, otherwise "
            "plain torch.",
            search_aliases=["rasterize", "gaussian splatting", "3dgs render", "render video", "depth map"],
            inputs=[
                io.Splat.Input("splat", tooltip="One scene: a SPLAT with a single bullet time."),
                sockets.Cameras.Input("cameras", tooltip="Paths to draw along, one after another."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Picture width in pixels. 0: from the height, or the cameras' own.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Picture height in pixels. 0: from the width, or the cameras' own.",
                ),
                io.Int.Input(
                    "every",
                    display_name="every nth frame",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Draw every nth frame of each path; fps falls with it. 1 draws all.",
                ),
                io.Color.Input("background", default="#ffffff", tooltip="Colour behind the splats, as #RRGGBB."),
                io.Combo.Input(
                    "backend",
                    options=list(rasterize.backends),
                    default="auto",
                    tooltip="What draws. auto: the fastest installed. torch runs anywhere, gsplat needs CUDA.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="ut_eval3d",
                    tooltip="ut_eval3d: 3DGUT, what Lyra was trained with. ewa: classic splatting, as most viewers.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="Pictures, all paths one after another."),
                io.Mask.Output("alpha", tooltip="1 where splats cover the background, 0 where nothing is."),
                io.Image.Output("depth", tooltip="Depth along the view axis in scene units, 0 where nothing is."),
                io.Image.Output("depth_view", display_name="depth view", tooltip="Depth to look at: near is white."),
                io.Float.Output("fps", tooltip="Playback speed in frames per second, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, splat, cameras, width, height, every, background, backend, mode) -> io.NodeOutput:
        """Draw the frames; where memory runs out, again with the device for the splats alone."""
        gaussians = sockets.single(splat, "choose one with Select Bullet Time")
        path = end_to_end(cameras, every, width, height)
        device = devices.compute_device()
        settings = RenderSettings(background=sockets.rgb(background), mode=mode, backend=backend)
        store, on_step = devices.intermediate_device(), progress.steps("render")

        def attempt(size: int) -> Frames:
            devices.make_room(size)
            return render(gaussians.to(device), path.to(device), settings, store, on_step)

        rooms = len(gaussians) * SPLAT_BYTES, devices.total_memory()
        return io.NodeOutput(*outputs(devices.first_that_fits(partial(attempt, room) for room in rooms)), path.fps)


def outputs(frames: Frames) -> Iterator[Tensor]:
    """The node's pictures, each made when what it is made of is the last thing that is still needed."""
    rgb, alpha, depth = frames.rgb, frames.alpha, frames.depth
    del frames
    yield sockets.to_image(rgb)
    del rgb
    yield sockets.to_mask(alpha)
    del alpha
    yield sockets.to_depth_image(depth)
    yield sockets.to_image(depth_view(depth))


class CropSplats(io.ComfyNode):
    """Splats by opacity, size and place."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        limit = {"default": 0.0, "min": 0.0, "max": 100000.0, "step": 0.01}
        place = {"min": -100000.0, "max": 100000.0, "step": 0.01}
        return io.Schema(
            node_id="LyraCropSplats",
            display_name="Prune and Crop Splats",
            category="Lyra/splat",
            description="Keeps the splats that are opaque enough, small enough and near enough. A SPLAT with several "
            "bullet times is cropped time by time.",
            search_aliases=["clean splat", "filter gaussians", "floaters", "cut", "bounding box"],
            inputs=[
                io.Splat.Input("splat", tooltip="The scene, or one scene for each bullet time."),
                io.Float.Input(
                    "min_opacity",
                    default=0.005,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Drop splats fainter than this, 0 to 1. 0.005 is invisible; 0 keeps all.",
                ),
                io.Float.Input(
                    "max_scale",
                    **limit,
                    tooltip="Drop splats with a longer radius, in scene units. 0: off.",
                ),
                io.Float.Input(
                    "max_distance", **limit, tooltip="Keep only what is this near the centre, in scene units. 0: off."
                ),
                io.Float.Input("box_width", **limit, tooltip="Size of the box along x (right) in scene units. 0: off."),
                io.Float.Input("box_height", **limit, tooltip="Size of the box along y (down) in scene units. 0: off."),
                io.Float.Input("box_depth", **limit, tooltip="Size of the box along z (ahead) in scene units. 0: off."),
                io.Float.Input("center_x", default=0.0, **place, tooltip="Centre of both: right, scene units."),
                io.Float.Input("center_y", default=0.0, **place, tooltip="Centre of both: down, scene units."),
                io.Float.Input(
                    "center_z",
                    default=1.0,
                    **place,
                    tooltip="Centre of both: ahead, scene units.",
                ),
            ],
            outputs=[io.Splat.Output("splat", tooltip="What is left.")],
        )

    @classmethod
    def execute(
        cls,
        splat,
        min_opacity,
        max_scale,
        max_distance,
        box_width,
        box_height,
        box_depth,
        center_x,
        center_y,
        center_z,
    ) -> io.NodeOutput:
        """Crop each bullet time."""
        limits = {
            "min_opacity": min_opacity,
            "max_scale": max_scale,
            "max_distance": max_distance,
            "box": (box_width, box_height, box_depth),
            "center": (center_x, center_y, center_z),
        }
        cropped = [crop(item, **limits) for item in sockets.from_splat(splat)]
        return io.NodeOutput(sockets.to_splat(cropped, sockets.times_of(splat)))
