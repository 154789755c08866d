"""The node that writes splats of several moments."""

from functools import partial

from comfy_api.latest import io

from ...comfyui_lyra.files.splats.sequence import save_sequence
from ...comfyui_lyra.splats.gaussians import GaussianSequence
from ...comfyui_lyra.viewer.write import write_scene
from ..comfy import folders, progress
from ..comfy import types as sockets
from .save import AXES, FORMS, SCALE, USUAL, placing


class SaveSplatSequence(io.ComfyNode):
    """A folder of numbered files, or one animated."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraSaveSplatSequence",
            display_name="Save Splat Sequence",
            category="Lyra/splat",
            description="Writes every bullet time of a SPLAT as a numbered file into a new folder, or all as one "
            "animated OpenUSD file or page, with the cameras and a manifest.json that says which file is which moment.",
            search_aliases=["export ply sequence", "4d gaussian", "splat animation", "save all times", "usd animation"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Splat.Input("splat", tooltip="Scenes of several bullet times, or one."),
                io.String.Input(
                    "times",
                    display_name="bullet times",
                    default="",
                    tooltip="Frame of the clip that each scene shows. Empty: those that came with the splats from "
                    "Reconstruct Splats, or 0, 1, 2 and so on.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="3d/lyra_sequence",
                    tooltip="Where the folder goes and how its name begins, below the output folder; a number follows.",
                ),
                io.Float.Input(
                    "scale",
                    **SCALE,
                    tooltip="Factor on positions and sizes, for instance metres per scene unit. 1 keeps scene units.",
                ),
                sockets.Cameras.Input(
                    "cameras",
                    optional=True,
                    tooltip="Paths in the world of the splats, saved alongside with their frames per second.",
                ),
                sockets.Geometry.Input(
                    "geometry",
                    optional=True,
                    tooltip="Multiply by this geometry's scale as well: back to the unit its depth came in (metres).",
                ),
                io.Combo.Input(
                    "format",
                    **FORMS,
                    tooltip="Form of the files; usda, usdc and html are one file. ply, glb and usdc lose nothing, "
                    "spz and sog are small. spz and sog need gaussforge, usdc needs usd-core: the help page says how "
                    "to install them.",
                ),
                io.Combo.Input(
                    "up",
                    **AXES,
                    tooltip="Which way is up in the file. usual: y_down for ply and sog, as this pack has it; y_up for "
                    "the others. y_up is x right, z back; z_up is x right, y ahead.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(
        cls, splat, times, filename_prefix, scale, cameras=(), geometry=None, format="ply", up=USUAL
    ) -> io.NodeOutput:
        """Write the folder."""
        frames = sockets.from_splat(splat)
        moments = sockets.times_of(splat, times) or tuple(range(len(frames)))
        folder, _ = folders.output_path(filename_prefix, "")
        save_sequence(
            folder, GaussianSequence(frames=frames, times=moments), cameras,
            fps=cameras[0].fps if cameras else 24.0, placing=placing(scale, geometry, up), kind=format,
            write=partial(write_scene, cameras=cameras), on_step=progress.steps("save"),
        )  # fmt: skip
        text = f"{len(frames)} scenes: {folders.below_output(folder)}"
        progress.show_text(cls, text)
        return io.NodeOutput(ui={"text": (text,)})
