"""Nodes that make, combine and show camera paths."""

from dataclasses import replace

import torch
from comfy_api.latest import io, ui

from ...comfyui_lyra.cameras.drawing import draw_paths
from ...comfyui_lyra.cameras.moves import DRAWS, PRESETS, ROTATIONS, SEEDS, PathSettings, camera_paths
from ...comfyui_lyra.cameras.path import pinhole_camera
from ...comfyui_lyra.cameras.sets import combine
from ...comfyui_lyra.geometry.fit import aimed
from ...comfyui_lyra.geometry.geometry import point_cloud
from ..comfy import progress
from ..comfy import types as sockets

PIXELS = {"min": 16, "max": 8192, "step": 16}  # limits of widgets
FRAMES = {"default": PathSettings.frames, "min": 1, "max": 2001, "step": 8}
SPEED = {"default": 24.0, "min": 1.0, "max": 120.0, "step": 1.0}


class CameraPaths(io.ComfyNode):
    """Named camera moves."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraCameraPaths",
            display_name="Camera Paths",
            category="Lyra/camera",
            description="Moves the camera from where the picture was taken: the six paths that Lyra reconstructs a "
            "scene from, or one of them. Distances count in depths of what the camera looks at.",
            search_aliases=["camera trajectory", "camera motion", "orbit", "dolly", "pan", "zoom", "lyra"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=PathSettings.preset,
                    tooltip="The six paths (left, right, up, zoom out, zoom in, clockwise) that reconstruction "
                    "needs, or a single move.",
                ),
                io.Float.Input(
                    "movement",
                    default=PathSettings.movement,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor on how far the camera goes. 1 is what Lyra was trained with: 10 to 60 percent of "
                    "the depth of the centre, depending on the move. 0 stands still.",
                ),
                io.Combo.Input(
                    "rotation",
                    options=list(ROTATIONS),
                    default=PathSettings.rotation,
                    tooltip="center_facing: keep looking at the centre. no_rotation: keep the direction. "
                    "trajectory_aligned: look where the move leads.",
                ),
                io.Int.Input(
                    "seed",
                    default=PathSettings.seed,
                    min=0,
                    max=SEEDS - 1,
                    control_after_generate="fixed",
                    tooltip="Chooses how far each of the six paths goes within its range. A single move takes "
                    "the middle of its range, whatever the seed.",
                ),
                io.Int.Input(
                    "frames",
                    **FRAMES,
                    tooltip="Frames of each path. Lyra's released models take 121, the mini ones 17. With a clip as "
                    "geometry the clip's own number counts instead, with a teacher the teacher's.",
                ),
                io.Float.Input("fps", **SPEED, tooltip="Playback speed in frames per second."),
                io.Int.Input(
                    "width",
                    default=1280,
                    **PIXELS,
                    tooltip="Picture width in pixels. Not used with geometry, which brings its own.",
                ),
                io.Int.Input(
                    "height",
                    default=704,
                    **PIXELS,
                    tooltip="Picture height in pixels. Not used with geometry, which brings its own.",
                ),
                io.Float.Input(
                    "fov",
                    default=38.0,
                    min=1.0,
                    max=170.0,
                    step=0.5,
                    tooltip="Vertical field of view in degrees. Not used with geometry, which brings its own.",
                ),
                io.Float.Input(
                    "center_depth",
                    default=PathSettings.center_depth,
                    min=0.001,
                    max=10000.0,
                    step=0.01,
                    tooltip="How far ahead the centre of the moves lies, in scene units. 1 fits every geometry source "
                    "of this pack; raise it for splats in metres.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "draw",
                    options=list(DRAWS),
                    default=PathSettings.draw,
                    tooltip="seeded: each path draws its own distance. reference: all at the same share of their "
                    "range, as the reference program does.",
                    advanced=True,
                ),
                sockets.Geometry.Input(
                    "geometry",
                    optional=True,
                    tooltip="Start from the cameras of this picture or clip: poses, field of view and size in pixels.",
                ),
                sockets.Teacher.Input(
                    "teacher",
                    optional=True,
                    tooltip="Make paths as this teacher takes them: the frames of one of its clips, and without "
                    "geometry its size. Leave it out for paths longer than a clip.",
                ),
            ],
            outputs=[sockets.Cameras.Output("cameras", tooltip="One path, or six in the order 0..5.")],
        )

    @classmethod
    def execute(
        cls, preset, movement, rotation, seed, frames, fps, width, height, fov, center_depth, draw, geometry=None,
        teacher=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Make the paths."""
        if teacher is not None:
            frames, (height, width) = teacher.config.trained_frames, teacher.config.trained_size
        base = aimed(geometry) if geometry is not None else pinhole_camera(width, height, fov)
        if len(base) == 1:
            base = replace(base, fps=fps)
        else:
            frames = len(base)
        settings = PathSettings(
            preset=preset, frames=frames, movement=movement, rotation=rotation, seed=seed, center_depth=center_depth,
            draw=draw,
        )  # fmt: skip
        if ignored := unused(geometry, teacher):
            size = f"{frames} frames of {base.width}x{base.height}"
            progress.show_text(cls, f"{size}; not used, as geometry or teacher say it: {', '.join(ignored)}")
        return io.NodeOutput(camera_paths(base, settings))


def unused(geometry, teacher) -> list[str]:
    """Widgets of Camera Paths that do nothing, as what is connected brings their values."""
    is_clip = geometry is not None and len(geometry.frames) > 1
    told = {
        "frames": teacher is not None or is_clip,
        "fps": is_clip,
        "width": geometry is not None or teacher is not None,
        "height": geometry is not None or teacher is not None,
        "fov": geometry is not None,
    }
    return [name for name, is_told in told.items() if is_told]


class CombineCameras(io.ComfyNode):
    """Sets of paths put together."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraCombineCameras",
            display_name="Combine Camera Paths",
            category="Lyra/camera",
            description="Puts several sets of camera paths into one, in the order of the sockets.",
            search_aliases=["merge cameras", "join paths", "concatenate cameras"],
            inputs=[
                io.Autogrow.Input(
                    "sets",
                    template=io.Autogrow.TemplatePrefix(
                        sockets.Cameras.Input("cameras", tooltip="Paths to put into the set."),
                        prefix="cameras",
                        min=2,
                        max=32,
                    ),
                    tooltip="Sets in order; a new socket appears with each.",
                )
            ],
            outputs=[sockets.Cameras.Output("cameras", tooltip="All paths; a repeated name gets a number.")],
        )

    @classmethod
    def execute(cls, sets) -> io.NodeOutput:
        """Put the sets together."""
        return io.NodeOutput(combine(list(sets.values())))


class PreviewCameras(io.ComfyNode):
    """A drawing of camera paths."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraPreviewCameras",
            display_name="Preview Camera Paths",
            category="Lyra/camera",
            description="Draws camera paths from above and from the side, with the scene if one is connected.",
            search_aliases=["show cameras", "view trajectory", "frusta", "camera plot"],
            is_output_node=True,
            inputs=[
                sockets.Cameras.Input("cameras", tooltip="The paths to draw."),
                io.Int.Input("width", default=1024, min=256, max=4096, step=16, tooltip="Picture width in pixels."),
                io.Int.Input("height", default=512, min=160, max=4096, step=16, tooltip="Picture height in pixels."),
                io.Splat.Input("splat", optional=True, tooltip="A scene to draw behind the paths."),
                sockets.Geometry.Input(
                    "geometry", optional=True, tooltip="A picture or clip whose first frame to draw behind the paths."
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="The drawing, one picture.")],
        )

    @classmethod
    def execute(cls, cameras, width, height, splat=None, geometry=None) -> io.NodeOutput:
        """Draw the paths."""
        scenes = [(item.means, item.colors) for item in sockets.from_splat(splat)] if splat is not None else []
        scenes += [point_cloud(geometry)] if geometry is not None else []
        scenes = [(points.cpu(), colors.cpu()) for points, colors in scenes]  # with --gpu-only some lie on the GPU
        points, colors = map(torch.cat, zip(*scenes, strict=True)) if scenes else (None, None)
        picture = sockets.to_image(draw_paths(cameras, points, colors, width=width, height=height)[None])
        return io.NodeOutput(picture, ui=ui.PreviewImage(picture, cls=cls))
