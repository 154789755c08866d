"""Nodes that make geometry of what others have measured: MoGe, Depth Anything 3, depth pictures."""

from dataclasses import replace

from comfy_api.latest import io

from ...comfyui_lyra.files.media.depth_values import MEANINGS, UNITS, in_metres
from ...comfyui_lyra.geometry.fit import aimed, meant_for
from ...comfyui_lyra.geometry.geometry import FITS, SCALES
from ...comfyui_lyra.sources.geometry import depth_of_size, from_da3, from_depth, from_moge
from ..camera.paths import PIXELS
from ..comfy import progress
from ..comfy import types as sockets

FOV = {"default": 38.0, "min": 1.0, "max": 170.0, "step": 0.5}


class GeometryFromMoGe(io.ComfyNode):
    """A picture with core's MoGe."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraGeometryFromMoGe",
            display_name="Geometry from MoGe",
            category="Lyra/geometry",
            description="Makes a geometry of a picture and what core's Run MoGe Inference has measured of it. "
            "MoGe knows the field of view and what is sky.",
            search_aliases=["depth", "moge to lyra", "picture to 3d", "image geometry", "monocular geometry"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("image", tooltip="The picture that MoGe has seen."),
                sockets.MogeGeometry.Input("moge_geometry", tooltip="From Run MoGe Inference on this very picture."),
                io.Int.Input(
                    "width",
                    default=1280,
                    **PIXELS,
                    tooltip="Width in pixels of paths and previews: 1280 for Lyra, 160 for the mini models. The "
                    "picture keeps its size until Generate Latents fits it to the teacher.",
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
                    tooltip="crop: cut the largest centred part of that shape. reference: squash the whole picture "
                    "into it, as Lyra's own programs do.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default="auto",
                    tooltip="auto: divide depth by its median, so that camera moves fit the scene. as_is: keep MoGe's "
                    "unit (metres from MoGe 2 on), as Lyra's own programs do with MoGe 1.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Geometry.Output("geometry", tooltip="The picture with depth and its camera.")],
        )

    @classmethod
    def execute(cls, image, moge_geometry, width, height, fit, scale) -> io.NodeOutput:
        """Convert."""
        frames = sockets.from_image(image)
        with progress.warnings() as warnings:
            geometry = meant_for(from_moge(frames, moge_geometry, scale), height, width, fit)
        return io.NodeOutput(shown(cls, geometry, warnings))


class GeometryFromDA3(io.ComfyNode):
    """Pictures with core's Depth Anything 3."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraGeometryFromDA3",
            display_name="Geometry from Depth Anything 3",
            category="Lyra/geometry",
            description="Makes a geometry of a picture or clip and what core's Depth Anything 3 has measured of it. "
            "A clip needs a run in multiview mode with a Small or Base model, which finds the cameras.",
            search_aliases=["depth", "da3 to lyra", "video geometry", "camera poses", "multiview depth"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("image", tooltip="The picture or clip that Depth Anything has seen."),
                sockets.Da3Geometry.Input("da3_geometry", tooltip="From Run Depth Anything 3 on these very pictures."),
                io.Float.Input(
                    "fov",
                    **FOV,
                    tooltip="Vertical field of view in degrees, for mono mode; multiview mode finds its own.",
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
                    tooltip="crop: cut the largest centred part of that shape. reference: squash as Lyra's own "
                    "programs do, a picture wholly, a clip a little before it is cut.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default="auto",
                    tooltip="auto: divide depth and camera positions by the first frame's median depth, so that camera "
                    "moves fit the scene. as_is: keep the model's unit.",
                    advanced=True,
                ),
            ],
            outputs=[sockets.Geometry.Output("geometry", tooltip="The frames with depth and cameras.")],
        )

    @classmethod
    def execute(cls, image, da3_geometry, fov, width, height, fit, scale) -> io.NodeOutput:
        """Convert."""
        frames = sockets.from_image(image)
        with progress.warnings() as warnings:
            geometry = meant_for(from_da3(frames, da3_geometry, fov, scale), height, width, fit)
        return io.NodeOutput(shown(cls, geometry, warnings))


class GeometryFromDepth(io.ComfyNode):
    """Pictures with depth pictures."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraGeometryFromDepth",
            display_name="Geometry from Depth",
            category="Lyra/geometry",
            description="Makes a geometry of a picture and its depth picture, from any source. A clip "
            "needs its cameras as well, or one that stood still.",
            search_aliases=["depth map", "depth picture", "exr depth", "disparity", "picture to 3d"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or the frames of a clip."),
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, io.Mask],
                    tooltip="Depth of each picture, of the same shape; a smaller one is enlarged.",
                ),
                io.Combo.Input(
                    "meaning",
                    options=list(MEANINGS),
                    default="near-far",
                    tooltip="near-far: a grey picture, white is near, as depth estimators draw it. depth: lengths "
                    "along the view axis, 0 is unknown, infinite is sky. disparity: 1 / depth, 0 is sky.",
                ),
                io.Float.Input(
                    "near",
                    default=1.0,
                    min=0.0001,
                    max=100000.0,
                    step=0.1,
                    tooltip="Depth of white in near-far pictures, in any unit; only its ratio to far shapes the scene.",
                ),
                io.Float.Input(
                    "far",
                    default=10.0,
                    min=0.0001,
                    max=100000.0,
                    step=0.1,
                    tooltip="Depth of black in near-far pictures, in the unit of near.",
                ),
                io.Float.Input("fov", **FOV, tooltip="Vertical field of view in degrees. Not used with cameras."),
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
                    tooltip="crop: cut the largest centred part of that shape. reference: squash as Lyra's own "
                    "programs do, a picture wholly, a clip a little before it is cut.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default="auto",
                    tooltip="auto: divide depth and camera positions by the first frame's median depth, so that camera "
                    "moves fit the scene. as_is: keep the unit that the depth is in.",
                    advanced=True,
                ),
                sockets.Cameras.Input(
                    "cameras",
                    optional=True,
                    tooltip="One path with a camera for each picture, of the same shape. A clip needs it, unless "
                    "its camera stood still.",
                ),
                io.Boolean.Input(
                    "still",
                    default=False,
                    optional=True,
                    tooltip="On: the clip's camera stood still, as on a tripod, and needs no cameras. If it did move, "
                    "the scene is smeared.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["as_is", *UNITS],
                    default="as_is",
                    optional=True,
                    tooltip="Of depth's numbers, with meaning depth. as_is: whatever they are. m: metres. mm: "
                    "millimetres; of a 16-bit picture, the numbers in its file. levels: shares of the largest number.",
                ),
            ],
            outputs=[sockets.Geometry.Output("geometry", tooltip="The frames with depth and cameras.")],
        )

    @classmethod
    def execute(
        cls, image, depth, meaning, near, far, fov, width, height, fit, scale, cameras=None, still=False, unit="as_is"
    ) -> io.NodeOutput:
        """Convert."""
        frames = sockets.from_image(image)
        path = sockets.only_path(cameras) if cameras is not None else None
        unit = None if unit == "as_is" else unit
        with progress.warnings() as warnings:
            values = in_metres(sockets.from_depth_image(depth), unit)
            values = depth_of_size(values, *frames.shape[1:3], source="the depth picture")
            geometry = from_depth(frames, values, meaning, near, far, fov, path, scale, still, unit=unit)
            geometry = meant_for(geometry, height, width, fit)
        return io.NodeOutput(shown(cls, geometry, warnings))


def shown(node: type[io.ComfyNode], geometry, warnings=()):
    """A geometry, after a word on the node about it.

    Its cameras lie on the CPU, as those of files and of the view do, also where ComfyUI keeps pictures on the GPU.
    """
    geometry = replace(geometry, cameras=geometry.cameras.to("cpu"))
    own, to = geometry.cameras, aimed(geometry)
    size = f"{len(own)} x {own.width}x{own.height}"
    size += f" for {to.width}x{to.height}" if (to.width, to.height) != (own.width, own.height) else ""
    progress.show_text(node, "\n".join([f"{size}, 1 scene unit = {geometry.scale:.4g} of the source's", *warnings]))
    return geometry
