"""The node that gives something to try the mini models on."""

from comfy_api.latest import io

from ...comfyui_lyra.files.scenes.sample import KINDS, shipped_sample
from ..comfy import types as sockets
from .sources import shown


class SampleScene(io.ComfyNode):
    """The picture and the clip that come with the pack."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSampleScene",
            display_name="Sample Scene",
            category="Lyra/geometry",
            description="Gives a picture or a clip that comes with this pack, with its true depth, at the size of the "
            "mini models: the beginning of a first scene, without any file.",
            search_aliases=["example picture", "example clip", "demo", "test image", "mini", "lyra"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "sample",
                    options=list(KINDS),
                    default="picture",
                    tooltip="picture: a still scene of 160x96 pixels. clip: 17 frames of a scene that moves, filmed by "
                    "a camera that stands still.",
                ),
            ],
            outputs=[
                sockets.Geometry.Output("geometry", tooltip="The frames with depth and camera, for Camera Paths."),
                io.Image.Output("frames", tooltip="The picture, or the frames of the clip."),
                io.Image.Output(
                    "depth",
                    tooltip="Depth along the view axis in scene units, infinite in the sky, for Geometry from Depth.",
                ),
            ],
        )

    @classmethod
    def execute(cls, sample) -> io.NodeOutput:
        """Read the files."""
        geometry = shown(cls, shipped_sample(sample))
        depth = sockets.to_depth_image(geometry.depth)
        return io.NodeOutput(geometry, sockets.to_image(geometry.frames), depth)
