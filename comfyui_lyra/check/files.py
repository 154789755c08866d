"""Whether a file of weights will work: whole, of a known loader, with every tensor in its shape, numbers finite."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ...kernels_glue.memory import recall, remember
from ..checkpoints.quantised import real
from ..checkpoints.sniff import FileFacts, sniff
from ..checkpoints.state import read_state
from ..configs import TEACHER_PRESETS, TeacherConfig
from ..download import RELEASES
from ..gen3c.dit import build
from ..gen3c.keys import RULES as TEACHER_RULES
from ..gen3c.load import FOLDERS
from ..progress import OnStep, no_progress
from ..recon.checkpoint import load_recon
from ..tokenizer.model import load_tokenizer
from ..weights import fitted, stored_config
from .report import Finding, Section
from .stages import FAULTS, first_line

HASHED = "file-hashes"  # what memory files them under
BLOCK = 2**22  # bytes hashed at a time
UNREADABLE = ("truncated", "empty", "zeros", "damaged")


def file_checks(path: Path, on_step: OnStep = no_progress) -> Section:
    """What a file or folder is, and whether its loader will take it. ``on_step`` counts tensors or blocks."""
    facts = sniff(path)
    broken = facts.kind in UNREADABLE
    found = [
        Finding(name="what it is", found=facts.text, works=False if broken else None),
        Finding(
            name="loader", found=facts.loader, works=facts.loader != "none", wanted="weights that this pack loads",
        ),
    ]  # fmt: skip
    if facts.loader != "none" and not broken:
        found += [told_precision(facts), *hash_findings(facts, on_step), fits(facts, on_step)]
    return Section(title=f"File {path.name}", findings=tuple(found))


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


def hash_findings(facts: FileFacts, on_step: OnStep) -> list[Finding]:
    """The file's hash beside the release's, where one is known for a file of its name."""
    file = facts.path
    known = {
        name: released.md5
        for release in RELEASES.values() for released in release.files if released.md5
        for name in (released.name, Path(released.source).name)
    }  # fmt: skip
    # several releases have a model.pt: our own names tell them apart
    names = [released for release in RELEASES.values() for released in release.files if released.name == file.name]
    wanted = names[0].md5 if len(names) == 1 else known.get(file.name) if file.name != "model.pt" else None
    if wanted is None or not file.is_file():
        return [Finding(name="hash", found="none is known for a file of this name")]
    found = md5_of(file, on_step)
    return [Finding(name="hash (md5)", found=found, works=found == wanted, wanted=wanted)]


def md5_of(file: Path, on_step: OnStep = no_progress) -> str:
    """MD5 of a file, taken once and remembered by size and time."""
    about = file.stat()
    key = f"{file.absolute()} {about.st_size} {about.st_mtime_ns}"
    if (known := recall(HASHED, key)) and isinstance(known.get("md5"), str):
        return known["md5"]
    digest, total = hashlib.md5(usedforsecurity=False), max(1, -(-about.st_size // BLOCK))
    with file.open("rb") as opened:
        for done, block in enumerate(iter(lambda: opened.read(BLOCK), b""), start=1):
            digest.update(block)
            on_step(min(done, total), total)
    remember(HASHED, key, {"md5": digest.hexdigest()})
    return digest.hexdigest()
