"""The node that shows a geometry along a camera path."""

from comfy_api.latest import io, ui

from ...comfyui_lyra.gen3c.preview import preview_cache
from ..comfy import devices, progress
from ..comfy import types as sockets

WORKING_BYTES = 3 << 30  # to draw with, mostly what a batch of frames takes


class PreviewCache(io.ComfyNode):
    """What the teacher will be shown."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraPreviewCache",
            display_name="Preview 3D Cache",
            category="Lyra/geometry",
            description="Draws the picture's or clip's points along a camera path: what the teacher will be shown, and "
            "where it has to invent. A wrong depth or field of view shows here, before the long run.",
            search_aliases=["warp preview", "point cloud", "show geometry", "depth check", "3d cache"],
            is_output_node=True,
            inputs=[
                sockets.Geometry.Input("geometry", tooltip="The picture or clip with its depth."),
                sockets.Cameras.Input("cameras", tooltip="Paths made from this geometry."),
                io.Int.Input("path", default=0, min=0, max=999, tooltip="Which path of the set; 0 is the first."),
                io.Int.Input(
                    "every",
                    display_name="every nth frame",
                    default=8,
                    min=1,
                    max=1000,
                    tooltip="Draw every nth frame of the path. 1 draws all.",
                ),
                io.Boolean.Input(
                    "foreground_masking",
                    default=True,
                    tooltip="Hide background that shows through gaps of the stretched foreground, as Generate does.",
                ),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The drawn points, black where nothing is known."),
                io.Mask.Output("known", tooltip="1 where points are, 0 where the teacher invents."),
            ],
        )

    @classmethod
    def execute(cls, geometry, cameras, path, every, foreground_masking) -> io.NodeOutput:
        """Draw the points."""
        devices.make_room(WORKING_BYTES)
        frames, known = preview_cache(
            geometry, sockets.chosen(cameras, path), every, foreground_masking, progress.steps("3D cache"),
            devices.compute_device(),
        )  # fmt: skip
        pictures = sockets.to_image(frames)
        return io.NodeOutput(pictures, sockets.to_mask(known), ui=ui.PreviewImage(pictures, cls=cls))
