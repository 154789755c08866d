"""The node that says whether everything will work here."""

from collections.abc import Callable
from functools import partial

from comfy_api.latest import io, ui
from torch import nn

from ...comfyui_lyra.configs import TeacherConfig
from ...comfyui_lyra.cost.recon import bytes_needed, count_tokens
from ...comfyui_lyra.cost.report import encode_bytes, generate_bytes
from ...comfyui_lyra.recon.schedule import DEFAULT
from ..comfy import devices, folders, progress
from ..comfy import types as sockets
from ..comfy.patchers import Model
from ..comfy.tokenizers import tokenizer_of

MINIS = 2 * 10**9  # bytes that the mini models work in
FILM_BYTES = 48  # a pixel of a true clip: its frames, the video, its depth, what came back


class Check(io.ComfyNode):
    """The machine, and models at their first use."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraCheck",
            display_name="Check Setup",
            category="Lyra/models",
            description="Says what works on this machine: versions, kernels, memory, and the small models of this pack "
            "on the GPU against the CPU. Models that are connected are run once, and must do what right weights do.",
            search_aliases=["test installation", "diagnose", "does it work", "broken", "report a problem", "doctor"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.MultiType.Input(
                    "tokenizer",
                    types=[sockets.Tokenizer, io.Vae],
                    optional=True,
                    tooltip="Try this tokenizer out too. The other models need it.",
                ),
                sockets.Teacher.Input(
                    "teacher", optional=True, tooltip="Try this teacher out too; minutes for the released one."
                ),
                sockets.Recon.Input(
                    "recon", optional=True, tooltip="Try this splat decoder out too; minutes for a released one."
                ),
            ],
            outputs=[io.String.Output("report", tooltip="What was found, as Markdown to read or to pass on.")],
        )

    @classmethod
    def execute(cls, tokenizer=None, teacher=None, recon=None) -> io.NodeOutput:
        """Check the machine, then each model that is connected."""
        from ...comfyui_lyra.check.everything import check_all  # deferred: brings diffusers, seconds

        if tokenizer is None and (teacher or recon):
            raise ValueError("to try out a teacher or splat decoder, connect their tokenizer too")
        devices.make_room(MINIS)
        report = check_all(
            devices.compute_device(), folders.output_folder(), models_of(tokenizer, teacher, recon),
            inside=devices.version(), tell=partial(progress.show_text, cls), progress=progress.steps,
        )  # fmt: skip
        text = str(report)
        progress.show_text(cls, report.verdict)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def models_of(tokenizer, teacher: Model | None, recon: Model | None):
    """What brings the connected models to the device, each when its turn comes; None where there is none."""
    from ...comfyui_lyra.check.models import Models

    if tokenizer is None:
        return None
    tokenizer = tokenizer_of(tokenizer)
    clip = shape_of(tokenizer.config.family)
    film = FILM_BYTES * clip[0] * clip[1] * clip[2]
    encode = film + encode_bytes(tokenizer.config, *clip, tokenizer.dtype)
    return Models(
        tokenizer=partial(bring, lambda: tokenizer.network, tokenizer, size=encode),
        teacher=teacher and partial(bring_teacher, teacher, tokenizer, film),
        recon=recon and partial(bring_recon, recon, tokenizer, encode),
    )


def shape_of(family: str) -> tuple[int, int, int]:
    """Frames, height and width of a family's clips."""
    from ...comfyui_lyra.check.models import sizes_of

    size, frames = sizes_of(family)
    return frames, *size


def bring(network: Callable[[], nn.Module], *models: Model, size: int) -> nn.Module:
    """A network, once it and what belongs to it have been loaded with room for ``size`` bytes."""
    devices.load(*models, size=size)
    return network()


def bring_teacher(teacher, tokenizer: Model, film: int):
    """The teacher with its tokenizer beside it."""
    config: TeacherConfig = teacher.config
    size = film + generate_bytes(config, tokenizer.config, 1, False, teacher.dtype)
    return bring(lambda: teacher.teacher, teacher, tokenizer, size=teacher.room(size))


def bring_recon(recon: Model, tokenizer: Model, encode: int) -> nn.Module:
    """The splat decoder with its tokenizer beside it."""
    config = recon.config
    counts = count_tokens(config, 6, config.trained_frames, *config.trained_size)
    needed = bytes_needed(config, 6, *counts, DEFAULT.segment, recon.dtype)
    return bring(lambda: recon.network, recon, tokenizer, size=max(needed, encode))
