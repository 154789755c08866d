"""Whether a file of weights will work: whole, of a known loader, with every tensor in its shape, numbers finite."""

from collections.abc import Callable, Iterable
from glob import escape
from pathlib import Path

import torch
from torch import Tensor, nn

from ...kernels_glue.memory import recall, remember
from ..callbacks import OnStep, no_progress
from ..configs import CHANNELS, TEACHER_PRESETS, TeacherConfig
from ..files.cameras.load import load_cameras
from ..files.cameras.npz import read_intrinsics, read_poses
from ..files.scenes.geometry import load_geometry
from ..files.scenes.latents import load_latents
from ..files.scenes.latents_pkl import load_latent_pkl
from ..files.scenes.sdg import find_clips, load_sdg, load_sdg_cameras
from ..files.splats.load import load_splats
from ..files.splats.ply import load_ply
from ..gen3c.dit import build
from ..gen3c.keys import RULES as TEACHER_RULES
from ..gen3c.load import FOLDERS
from ..gen3c.text import load_text
from ..recon.load import load_recon
from ..released.download import hashes, identity
from ..released.sniff import FileFacts, sniff
from ..released.table import RELEASES
from ..tokenizer.files import read_statistics
from ..tokenizer.model import load_tokenizer
from ..weights.checkpoints.containers import container
from ..weights.checkpoints.ours import latents_in
from ..weights.checkpoints.quantised import real
from ..weights.checkpoints.state import read_state
from ..weights.load import fitted, stored_config
from .report import Finding, Section
from .stages import FAULTS, first_line

FETCHED = "fetched"  # what ``download`` files hashes under
READERS: dict[str, Callable[[Path], object]] = {  # of what is no model, by kind
    "statistics": lambda path: read_statistics(path, CHANNELS),
    "text embeddings": lambda path: load_text(path, TEACHER_PRESETS["gen3c"]),
    "geometry": load_geometry,
    "cameras": load_cameras,
    "ply": load_ply,
    "packed splats": load_splats,
    "splats": lambda path: read_all(load_ply, path.glob("[!.]*.ply")),
    "latents": lambda path: read_all(read_latents, latents_in(path) if path.is_dir() else [path]),
    "view": lambda path: read_view(path),
    "generated": lambda path: read_generated(path),
}
OTHERS = (  # known, no weights, and read by nothing here
    "clips", "sequence", "manifest", "sample", "training", "npz", "npy", "exr", "pfm", "picture", "animation", "video",
    "text", "json",
)  # fmt: skip
NAMED_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf")  # what is called so should hold some
UNREADABLE = ("truncated", "empty", "zeros", "damaged")


def file_checks(path: Path, on_step: OnStep = no_progress) -> Section:
    """What a file or folder is, and whether its loader will take it. ``on_step`` counts a teacher's tensors."""
    facts = sniff(path)
    broken = facts.kind in UNREADABLE
    if facts.kind in READERS:
        return Section(title=f"File {path.name}", findings=(told_what(facts), hash_finding(path), reads(facts)))
    if facts.kind in OTHERS and path.suffix not in NAMED_WEIGHTS:
        untold = Finding(name="content", found="not weights, not looked into")
        return Section(title=f"File {path.name}", findings=(told_what(facts), untold))
    found = [
        told_what(facts, broken),
        Finding(
            name="loader", found=facts.loader, works=facts.loader != "none", wanted="weights that this pack loads",
        ),
    ]  # fmt: skip
    if facts.loader != "none" and not broken:
        found += [told_precision(facts), hash_finding(path), fits(facts, on_step)]
    return Section(title=f"File {path.name}", findings=tuple(found))


def told_what(facts: FileFacts, broken: bool = False) -> Finding:
    """What ``sniff`` says of it."""
    return Finding(name="what it is", found=facts.text, works=False if broken else None)


def reads(facts: FileFacts) -> Finding:
    """Whether a file that is no model is read by what reads its kind."""
    try:
        READERS[facts.kind](facts.path)
    except FAULTS as error:
        return Finding(name="reads", found=first_line(error), works=False, wanted="no error")
    return Finding(name="reads", found="as it should", works=True, wanted="no error")


def read_all(read: Callable[[Path], object], files: Iterable[Path]) -> None:
    """Read files one after another, and keep none."""
    for file in files:
        read(file)


def read_latents(file: Path) -> None:
    """Read one file of latents, in whichever form."""
    (load_latents if container(file).kind == "safetensors" else load_latent_pkl)(file)


def read_view(folder: Path) -> None:
    """Read the latents, the poses and the lenses of one generated path."""
    read_all(read_latents, latents_in(folder / "latent"))
    read_all(read_poses, (folder / "pose").glob("*.npz"))
    read_all(read_intrinsics, (folder / "intrinsics").glob("*.npz"))


def read_generated(folder: Path) -> None:
    """Read the latents and cameras of every clip, or its cameras alone where it has no latents."""
    for clip in find_clips(folder):
        if any(folder.glob(f"*/latent/{escape(clip)}.*")):
            load_sdg(folder, clip)
        else:
            load_sdg_cameras(folder, clip, size=(1, 1))  # of its pictures, which cameras alone do not tell


def told_precision(facts: FileFacts) -> Finding:
    """How many numbers in which precision."""
    precisions = ", ".join(f"{name} {count:,}" for name, count in facts.dtypes.items())
    scaled = ", with scales" if facts.quantised else ""
    return Finding(name="numbers", found=f"{facts.parameters:,} in {facts.tensors} tensors: {precisions}{scaled}")


def fits(facts: FileFacts, on_step: OnStep) -> Finding:
    """Whether every tensor that the model has is there in its shape and no other, and holds numbers."""
    name = "names, shapes, numbers"
    wanted = "what the model has, all finite"
    takers: dict[str, Callable[[Path], int]] = {"recon": take_recon, "tokenizer": take_tokenizer}
    try:
        if facts.loader == "teacher":
            count = take_teacher(facts.path, on_step)
        elif facts.loader in takers:
            count = takers[facts.loader](facts.path)
        else:
            return Finding(name=name, found="not looked at: transformers reads a text encoder itself")
    except FAULTS as error:
        return Finding(name=name, found=first_line(error), works=False, wanted=wanted)
    return Finding(name=name, found=f"{count} tensors fit", works=True, wanted=wanted)


def take_teacher(path: Path, on_step: OnStep) -> int:
    """Count of the tensors of a teacher, looked at one after another: a released file does not fit into RAM."""
    config = stored_config(path, TeacherConfig) or TEACHER_PRESETS["gen3c"]
    state = fitted(build(config), read_state(path, FOLDERS), TEACHER_RULES, path.name)
    for done, (name, value) in enumerate(state.items(), start=1):
        check_finite(name, real(value, None))
        on_step(done, len(state))
    return len(state)


def take_recon(path: Path) -> int:
    """Count of the tensors of a splat decoder."""
    return take(load_recon(path))


def take_tokenizer(path: Path) -> int:
    """Count of the tensors of a tokenizer; its statistics must be there too."""
    tokenizer = load_tokenizer(path)
    check_finite("mean", tokenizer.mean)
    check_finite("std", tokenizer.std)
    if not bool((tokenizer.std > 0).all()):
        raise ValueError("the tokenizer's deviations are not all positive; mean and deviation may be exchanged")
    return take(tokenizer)


def take(model: nn.Module) -> int:
    """Count of a model's tensors, which must be finite."""
    state = model.state_dict()
    for name, value in state.items():
        check_finite(name, value)
    return len(state)


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError where a tensor holds anything but numbers."""
    if values.is_floating_point() and not bool(torch.isfinite(values.float()).all()):
        raise ValueError(f"{name} holds values that are not finite; get the file again, or convert it anew")


def hash_finding(file: Path) -> Finding:
    """A file's hash beside the release's, where one is known for a file of its name; taken once, then remembered."""
    wanted = known_md5(file.name)
    if wanted is None or not file.is_file():
        return Finding(name="hash", found="none is known for a file of this name")
    if (record := recall(FETCHED, identity(file))) is None:
        remember(FETCHED, identity(file), record := hashes(file, ["md5"]))
    found = record.get("md5") or hashes(file, ["md5"])["md5"]
    if found != wanted and len(record) > 1:  # the hub vouched for it when it was fetched
        return Finding(name="hash (md5)", found=f"{found}: whole, and another version than this pack knows")
    return Finding(
        name="hash (md5)", found=found, works=found == wanted,
        wanted=f"{wanted}; another is of another version, or damaged: fetch it again",
    )  # fmt: skip


def known_md5(name: str) -> str | None:
    """The hash of a release's file by our name for it, or by its own where no other release has such a name."""
    files = [file for release in RELEASES.values() for file in release.files]
    ours = {file.md5 for file in files if file.name == name}
    theirs = {file.md5 for file in files if Path(file.source).name == name}
    found = ours or theirs
    return next(iter(found)) if len(found) == 1 else None
