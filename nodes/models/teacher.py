"""The node that loads the teacher, and the teacher in ComfyUI's hands."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...kernels_glue.attention import attention as attention_op
from ..comfy import devices, progress
from ..comfy import types as sockets
from ..comfy.patchers import Model
from ..comfy.shelf import TEACHERS
from ..native.network import ATTENTION
from ..native.teacher import gen3c_of, model_of, model_of_file, teacher_of_model

if TYPE_CHECKING:
    from ...comfyui_lyra.gen3c.load import Teacher  # brings diffusers, whose import takes seconds


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherModel(Model):
    """What LYRA_TEACHER carries."""

    teacher: "Teacher"
    attention: str = "auto"  # backend
    stream: bool = False  # leave the device's memory to others and copy each layer's weights when it runs

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the network computes in."""
        return self.teacher.dtype

    def room(self, size: int) -> int:
        """Bytes to ask ComfyUI to leave free of weights where ``size`` bytes are worked in."""
        return max(size, devices.total_memory()) if self.stream else size


def teacher_of(given) -> TeacherModel:
    """What a LYRA_TEACHER socket carries, or the same made of what a MODEL socket does, with its patches."""
    if isinstance(given, TeacherModel):
        return given
    model = gen3c_of(given)
    attention = given.model_options.get("transformer_options", {}).get(ATTENTION, "auto")
    return TeacherModel(
        patcher=given,
        config=model.teacher_config,
        file="MODEL",
        licence=model.licence,
        teacher=teacher_of_model(given),
        attention=attention,
        stream=model.stream,
    )


class LoadTeacher(io.ComfyNode):
    """The video model that imagines a scene from new sides."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraLoadTeacher",
            display_name="Load Teacher",
            category="Lyra/models",
            description="Loads the video model that shows a picture or clip from new camera paths: GEN3C, or the small "
            "one of this pack.",
            search_aliases=["gen3c", "cosmos", "diffusion model", "video model", "world model", "lyra"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=TEACHERS.names(),
                    tooltip="A file in models/diffusion_models; those under mini come with the pack. GEN3C's licence "
                    "(NVIDIA Open Model License) ends your right to use it if you bypass its guardrail without a "
                    "substantially similar one; like Lyra's own data programs, this pack runs it without one.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(devices.PRECISIONS),
                    default="auto",
                    tooltip="What it computes in. auto: bfloat16 where the GPU is fast at it, otherwise float32.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "attention",
                    options=list(attention_op.choices),
                    default="auto",
                    tooltip="What computes attention. auto: the fastest exact one. int8: 8-bit integers, for cards on "
                    "which that is slow. sol: sparse, about twice as fast and different; the larger number leaves out "
                    "more, first keeps the first frame whole. int8 comes with ComfyUI's comfy-kitchen, sol with a "
                    "newer one (0.2.40). fa4: FlashAttention 4, where it is installed.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "memory",
                    options=["auto", "stream"],
                    default="auto",
                    tooltip="auto: as much of the weights as fits stays on the GPU. stream: they stay in RAM (14.5 GB "
                    "for GEN3C), and each layer's are copied when it runs: slower, in the least GPU memory.",
                    advanced=True,
                ),
            ],
            outputs=[
                sockets.Teacher.Output("teacher", tooltip="For Generate Latents and Plan."),
                io.Model.Output(
                    "model",
                    tooltip="The same weights for ComfyUI's own nodes: LoRA loaders, EasyCache, and KSampler with "
                    "GEN3C Conditioning. Generate Latents takes it as well, with its LoRAs.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        """Say before the run that the file is missing."""
        return TEACHERS.is_there(file)

    @classmethod
    def fingerprint_inputs(cls, file=None, *_, **__):
        """Load again when the file has changed, or another that belongs to it."""
        return TEACHERS.state_of(file)

    @classmethod
    def execute(cls, file, precision, attention, memory) -> io.NodeOutput:
        """Read the weights; they stay in RAM until a node needs them."""
        teacher, model = load(file, TEACHERS.path(file), devices.precision(precision), attention, memory == "stream")
        height, width = teacher.config.trained_size
        progress.show_text(cls, f"{teacher.config.trained_frames} frames of {width}x{height}. {teacher.licence}")
        return io.NodeOutput(teacher, model)


def load(file: str, path: Path, dtype: torch.dtype, attention: str, stream: bool) -> tuple[TeacherModel, ModelPatcher]:
    """A file as a teacher and as a MODEL: one network for both, core's, and one copy of its weights.

    A quantised file's matrices stay as they are.
    """
    from ...comfyui_lyra.gen3c.load import is_quantised, load_teacher

    if is_quantised(path):
        model = model_of_file(path, attention, stream)
    else:
        model = model_of(load_teacher(path, dtype=dtype), attention, stream)
    return replace(teacher_of(model), file=file), model
