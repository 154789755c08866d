"""Nodes between camera paths and the cameras of ComfyUI's 3D view."""

from dataclasses import replace

from comfy_api.latest import io

from ...comfyui_lyra.cameras.moves import EASINGS, through_keyframes
from ...comfyui_lyra.cameras.viewer import keyframes_from_viewer, one_by_one, to_viewer
from ...comfyui_lyra.geometry.fit import aimed
from ..comfy import types as sockets
from .paths import FRAMES, PIXELS, SPEED


class CamerasFromCore(io.ComfyNode):
    """Keyframes set in ComfyUI's 3D view."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraCamerasFromCore",
            display_name="Camera Paths from 3D View",
            category="Lyra/camera",
            description="Makes one path through cameras framed by hand in ComfyUI's 3D view or Create Camera Info.",
            search_aliases=["keyframes", "camera info", "load3d camera", "camera animation"],
            inputs=[
                io.Autogrow.Input(
                    "keyframes",
                    template=io.Autogrow.TemplatePrefix(
                        io.Load3DCamera.Input("keyframe", tooltip="A camera that the path passes."),
                        prefix="keyframe",
                        min=1,
                        max=32,
                    ),
                    tooltip="Cameras in the order of the path; a new socket appears with each.",
                ),
                io.Int.Input("frames", **FRAMES, tooltip="Frames of the whole path. With a teacher, the teacher's."),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="smooth",
                    tooltip="smooth: curves with a gentle start and stop. linear: straight from key to key.",
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
                sockets.Geometry.Input(
                    "geometry", optional=True, tooltip="Start at the first camera of this picture or clip instead."
                ),
                sockets.Teacher.Input(
                    "teacher", optional=True, tooltip="Make the path as long as a clip of this teacher, in frames."
                ),
            ],
            outputs=[sockets.Cameras.Output("cameras", tooltip="One path.")],
        )

    @classmethod
    def execute(cls, keyframes, frames, easing, fps, width, height, geometry=None, teacher=None) -> io.NodeOutput:
        """Run a path through the keyframes."""
        frames = frames if teacher is None else teacher.config.trained_frames
        start = aimed(geometry) if geometry is not None else None
        keys = keyframes_from_viewer(one_by_one(keyframes.values()), width, height, start)
        return io.NodeOutput((through_keyframes(replace(keys, fps=fps), frames, easing),))


class CameraToCore(io.ComfyNode):
    """One camera for ComfyUI's 3D nodes."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraCameraToCore",
            display_name="Camera to 3D View",
            category="Lyra/camera",
            description="Hands one camera of a path to ComfyUI's 3D nodes: Preview Splat opens the scene from there.",
            search_aliases=["camera info", "load3d camera", "viewport"],
            inputs=[
                sockets.Cameras.Input("cameras", tooltip="The paths to choose from."),
                io.Int.Input("path", default=0, min=0, max=999, tooltip="Which path of the set; 0 is the first."),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=-1,
                    max=9999,
                    tooltip="Which frame of the path; 0 is the first. -1: a list of all, for nodes that take one.",
                ),
            ],
            outputs=[io.Load3DCamera.Output("camera_info", tooltip="Position, target and field of view.")],
        )

    @classmethod
    def execute(cls, cameras, path, frame) -> io.NodeOutput:
        """Convert one camera, or all of a path."""
        chosen = sockets.chosen(cameras, path)
        found = to_viewer(chosen, frame) if frame >= 0 else [to_viewer(chosen, i) for i in range(len(chosen))]
        return io.NodeOutput(found)
