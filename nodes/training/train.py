"""The node that trains a splat decoder."""

from pathlib import Path
from types import MappingProxyType

from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...comfyui_lyra.files.media.images import load_image, to_bytes
from ...comfyui_lyra.recon.load import load_recon
from ...comfyui_lyra.training.run.checkpoint import steps as saved_steps
from ...comfyui_lyra.training.run.log import read_log
from ...comfyui_lyra.training.stages import MINI_STAGES
from ..comfy import devices, folders, hooks, progress
from ..comfy import types as sockets
from ..comfy.patchers import Model, in_core
from ..comfy.shelf import TOKENIZERS

STAGES = MappingProxyType({"static": ("m1", "m2", "m3", "m4", "m5"), "dynamic": ("m6", "m7"), "quick": ("m1",)})
PREVIEW_SIZE = 1024  # most pixels a side
MEASURED = MappingProxyType({"held_out": "on scenes kept apart", "training": "on the training scenes"})


class TrainRecon(io.ComfyNode):
    """A splat decoder of one's own."""

    @classmethod
    def define_schema(cls):
        """Sockets and widgets."""
        return io.Schema(
            node_id="LyraTrainRecon",
            display_name="Train Splat Decoder",
            category="Lyra/models",
            description="Trains a splat decoder of the mini size on generated scenes, as Lyra's was: what it draws "
            "must look like the frames of the teacher. A run that was stopped goes on where it was.",
            search_aliases=["fine-tune", "distillation", "training", "learn", "lyra"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Tokenizer.Input(
                    "tokenizer", tooltip="From Load Tokenizer: the mini one, which stays as it is."
                ),
                io.String.Input(
                    "dataset",
                    default="lyra",
                    tooltip="Folder or tar of generated scenes, searched as a whole: below ComfyUI's input or output "
                    "folder, or with its whole path. lyra: all that Generate Latents has made. Scenes need six paths "
                    "of 17 frames, with their videos.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(STAGES),
                    default="static",
                    tooltip="static: for still scenes. dynamic: told the bullet time, for scenes that move. quick: the "
                    "first stage of static alone, small pictures of single paths: a second a step on a CPU, where the "
                    "others take a minute.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=10,
                    max=1000000,
                    tooltip="Steps in all, those of a run that is continued included. All stages are planned for "
                    "about 10000; a few hundred show whether it learns.",
                ),
                io.Float.Input(
                    "minutes",
                    default=0.0,
                    min=0.0,
                    max=10000.0,
                    step=1.0,
                    tooltip="Stop after so many minutes, in good order, to go on later. 0: only the steps count.",
                ),
                io.String.Input(
                    "name",
                    default="my_decoder",
                    tooltip="Name of the folder below output/lyra/decoders. Load Splat Decoder lists the result.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    tooltip="On: go on where a run in the folder was stopped; with more steps, train it further. Off: "
                    "begin anew, in a folder with a number if this one is there.",
                ),
                io.String.Input(
                    "start_from",
                    default="",
                    tooltip="Name of a finished training to begin with, for instance a static one for dynamic. Its "
                    "steps count, so ask for more steps than it has. Empty: begin with random weights.",
                    advanced=True,
                ),
                io.Int.Input(
                    "batch",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Scenes a step. 0: 8 to 2, as the stages have it. 1 takes the least memory.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "flipped",
                    default=False,
                    tooltip="For dynamic: learn from time-flipped twins too, which keep far views solid at early times."
                    " The dataset must hold them, as paths 6 to 11.",
                    advanced=True,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate="fixed",
                    tooltip="Of the first weights and the order of the scenes.",
                    advanced=True,
                ),
            ],
            outputs=[
                sockets.Recon.Output("recon", tooltip="The trained splat decoder, for Reconstruct Splats."),
                io.Image.Output("preview", tooltip="Frames of the teacher above what the splats show."),
            ],
        )

    @classmethod
    def validate_inputs(cls, dataset=None):
        """Say before the run that the folder is missing."""
        return hooks.is_there(folders.saved_path, dataset)

    @classmethod
    def fingerprint_inputs(cls, dataset=None, minutes=None, name=None, resume=None, *_, **__):
        """Train again where the last run's time was over before its steps, and when there are other scenes."""
        timed = name if resume and minutes else None
        reached = hooks.state_of(folders.decoder_folder, timed, lambda folder: saved_steps(folder)[-1:])
        return f"{reached} {hooks.state_of(folders.saved_path, dataset, files_below)}"

    @classmethod
    def execute(
        cls, tokenizer, dataset, preset, steps, minutes, name, resume, start_from, batch, flipped, seed
    ) -> io.NodeOutput:
        """Train, or go on training, and load the result."""
        from ...comfyui_lyra.training.train_recon import ReconTraining, train_recon  # deferred: brings diffusers

        folder, watch = folders.decoder_folder(name, anew=not resume), Watch()
        with devices.training():
            file = train_recon(
                folder,
                tokenizer_file(tokenizer),
                stages=STAGES[preset],
                roots=[folders.saved_path(dataset)],
                after=folders.decoder_folder(start_from) if start_from.strip() else None,
                training=ReconTraining(pace=pace(preset, steps), batch=batch or None, flipped=flipped, seed=seed),
                max_seconds=60 * minutes or None,
                resume=bool(saved_steps(folder)),
                device=devices.compute_device(),
                on_step=watch.on_step,
                on_picture=watch.on_picture,
            )
        network = load_recon(file)
        progress.show_text(cls, summary(folder))
        preview = sockets.to_image(newest_picture(folder))
        model = Model(patcher=in_core(network.to(devices.precision("auto"))), config=network.config, file=str(file))
        return io.NodeOutput(model, preview, ui=ui.PreviewImage(preview, cls=cls))


class Watch:
    """Callbacks for ``train_recon``: a bar over all steps, and the newest picture on the node."""

    def __init__(self):
        self._on_step, self._preview = progress.steps("train splat decoder"), None

    def on_step(self, done: int, total: int) -> None:
        """A step is done."""
        preview, self._preview = self._preview, None
        self._on_step(done, total, preview)

    def on_picture(self, picture: Tensor) -> None:
        """What a validation has seen."""
        self._preview = ("JPEG", Image.fromarray(to_bytes(picture)), PREVIEW_SIZE)


def files_below(root: Path) -> str:
    """Changes with the number of files of a dataset and with the newest; what is trained on it may lie there too."""
    files = root.rglob("*") if root.is_dir() else [root]
    found = [file for file in files if file.is_file() and folders.decoders() not in file.parents]
    return f"{len(found)}:{max((file.stat().st_mtime_ns for file in found), default=0)}"


def tokenizer_file(tokenizer: Model) -> Path:
    """Where the tokenizer's weights lie: training needs a copy of its own, that gradients may pass through."""
    return TOKENIZERS.path(tokenizer.file)


def pace(preset: str, steps: int) -> float:
    """So many steps in all, as a share of those that the stages are planned for."""
    return steps / MINI_STAGES[STAGES[preset][-1]].stop


def newest_picture(folder: Path) -> Tensor:
    """The last picture of a training, [1, H, W, 3]."""
    return load_image(max(folder.glob("recon-*.png")))[None]


def summary(folder: Path) -> str:
    """How far a training has come, and how well it did when it was last looked at."""
    lines = read_log(folder / "log.jsonl")
    found = [(kind, line) for line in lines for kind in MEASURED if f"{kind}_psnr" in line]
    if not found:
        return f"step {lines[-1]['step']}: not measured"
    kind, scores = found[-1]
    psnr, ssim = scores[f"{kind}_psnr"], scores[f"{kind}_ssim"]
    return f"step {lines[-1]['step']}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f} {MEASURED[kind]}"
