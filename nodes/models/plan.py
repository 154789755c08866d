"""The node that says what a scene will take."""

import shutil

from comfy_api.latest import io, ui

from ...comfyui_lyra.cost.report import matmul_speed, report, stages
from ...comfyui_lyra.recon.times import parse_times
from ..comfy import devices, folders, progress
from ..comfy import types as sockets
from ..comfy.tokenizers import tokenizer_of


class Plan(io.ComfyNode):
    """Memory, time and disk."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraPlan",
            display_name="Plan",
            category="Lyra/models",
            description="Says before a long run how much memory, time and disk the models connected here will take for "
            "these camera paths.",
            search_aliases=["estimate", "vram", "how long", "memory needed", "disk space"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Cameras.Input("cameras", tooltip="The paths that are to be generated or reconstructed."),
                sockets.Recon.Input("recon", optional=True, tooltip="Plan the reconstruction of splats."),
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    optional=True,
                    tooltip="Plan the encoding of the cameras, which reconstruction begins with.",
                ),
                sockets.Teacher.Input("teacher", optional=True, tooltip="Plan the generation of latents."),
                io.String.Input(
                    "times",
                    display_name="bullet times",
                    default="0",
                    tooltip="Frames at which a moving scene will be reconstructed, as in Reconstruct Splats.",
                ),
                io.Int.Input(
                    "steps",
                    default=35,
                    min=2,
                    max=1000,
                    tooltip="Steps of generation, as in Generate Latents.",
                    advanced=True,
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    optional=True,
                    tooltip="As in Generate Latents: a step is two passes of the teacher, and at 0 one.",
                    advanced=True,
                ),
            ],
            outputs=[io.String.Output("text", tooltip="The plan, to read.")],
        )

    @classmethod
    def execute(cls, cameras, times, steps, recon=None, tokenizer=None, teacher=None, guidance=1.0) -> io.NodeOutput:
        """Count and measure."""
        dtype = recon.dtype if recon else devices.precision("auto")
        found = stages(
            cameras, teacher=teacher and teacher.config, tokenizer=tokenizer and tokenizer_of(tokenizer).config,
            recon=recon and recon.config, times=len(parse_times(times)), steps=steps, guidance=guidance, dtype=dtype,
        )  # fmt: skip
        text = report(
            cameras, found, speed=matmul_speed(devices.compute_device(), dtype), precision=str(dtype).split(".")[1],
            memory=devices.free_memory(), disk=shutil.disk_usage(folders.output_folder()).free,
        )  # fmt: skip
        progress.show_text(cls, text)
        return io.NodeOutput(text, ui=ui.PreviewText(text))
