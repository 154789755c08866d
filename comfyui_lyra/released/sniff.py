"""What a file or folder is, and which loader takes it: by its content, without reading its numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from ..configs import PATCH, TEACHER_INPUTS
from ..files.cameras.colmap import find_model
from ..files.reading import parse_json
from ..gen3c.keys import RULES as TEACHER_RULES
from ..tokenizer.keys import rules as tokenizer_rules
from ..weights.checkpoints.containers import AGAIN, WEIGHTS, container
from ..weights.checkpoints.ours import folder_kind, told_of
from ..weights.checkpoints.parts import SHARD, parts_of
from ..weights.checkpoints.safetensors_files import read_header
from ..weights.checkpoints.state import read_content, tensors_of, unwrapped
from ..weights.checkpoints.unpickle import Damaged, Inert
from ..weights.load import rename

Loader = Literal["teacher", "tokenizer", "recon", "text encoder", "none"]
LOADERS = {
    "teacher": "the teacher (Load Teacher)", "tokenizer": "the video tokenizer (Load Tokenizer)",
    "recon": "a splat decoder (Load Splat Decoder)",
    "text encoder": "a T5 text encoder (core's CLIP loader; its folder for 'lyra encode-text')",
    "none": "nothing that a loader of this pack takes",
}  # fmt: skip
MARKS = {  # tensors that only this kind of model has, in our names
    "recon": ("patch_plucker_embed.proj.weight",),
    "teacher": ("transformer_blocks.0.attn1.to_q.weight", "patch_embed.proj.weight"),
    "text encoder": ("encoder.block.0.layer.0.SelfAttention.q.weight",),
}
HALVES = ("encoder.conv_in.conv_s.weight", "decoder.conv_in.conv_s.weight")  # of the tokenizer
QUANTISED = (".comfy_quant", ".scale_weight", ".weight_scale")


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What ``sniff`` found. Numbers are 0 and names empty where the file holds no weights."""

    path: Path
    kind: str  # see ``sniff``
    size: int  # bytes, of all parts
    sentence: str  # what it is, for a person: "NAME is " goes before it
    remedy: str = ""  # what to do, where it cannot be used as it is
    loader: Loader = "none"
    tensors: int = 0
    parameters: int = 0  # numbers in them all
    dtypes: dict[str, int] = field(default_factory=dict)  # precision -> numbers in it, most first
    wrappers: tuple[str, ...] = ()  # levels around the tensors, outermost first
    quantised: bool = False  # its weights come with scales
    about: dict[str, str] = field(default_factory=dict)  # a safetensors file's metadata
    files: tuple[Path, ...] = ()  # the parts

    @property
    def text(self) -> str:
        """The sentence with the file's name before it and the remedy behind."""
        return f"{self.path.resolve().name} is {self.sentence}" + (f"; {self.remedy}" if self.remedy else "")


def sniff(path: Path | str) -> FileFacts:
    """What a file or folder is, by content and not by suffix.

    Reads headers only: a file of 29 GB takes no longer than a small one. ``kind`` is one of "safetensors", "torch zip",
    "torch legacy", "torchscript" (weights, which ``loader`` names where they are ours); "sharded", "diffusers folder",
    "cameras", "folder" and the kinds of ``ours.folder_kind``; "geometry", "latents", "text embeddings", "statistics"
    (what this pack writes and reads beside weights); "other splats"; "truncated", "empty", "zeros" (a download to
    repeat); "damaged"; and ``containers.PLAIN`` for all else, "unknown" among them. Raises FileNotFoundError where
    there is nothing, and nothing else: what cannot be opened or contradicts itself is told in ``sentence``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            return of_folder(path)
        return of_parts(path, "sharded") if SHARD.fullmatch(path.name) else of_file(path)
    except OSError as error:
        return FileFacts(path=path, kind="unknown", size=0, sentence=f"a file that cannot be opened ({error.strerror})")
    except Damaged as error:
        return damaged(path, str(error))


def of_file(path: Path) -> FileFacts:
    """The facts of one file."""
    found = container(path)
    if found.kind == "index":
        return of_parts(path, "sharded")
    if found.kind not in WEIGHTS:
        return FileFacts(path=path, kind=found.kind, size=found.size, sentence=found.sentence, remedy=found.remedy)
    facts = FileFacts(path=path, kind=found.kind, size=found.size, sentence=found.sentence, files=(path,))
    if found.kind == "safetensors":
        header = read_header(path)
        facts = replace(facts, about=dict(header.about))
        if own := told_of(header.about, header.tensors):
            return replace(facts, kind=own[0], sentence=own[1])
    try:
        content = read_content(path, is_described=True)
    except ValueError as error:
        return damaged(path, str(error.__cause__ or error))
    return of_content(facts, content)


def of_content(facts: FileFacts, content: object) -> FileFacts:
    """The facts of a file of weights, from what it describes."""
    inner, wrappers = unwrapped(content)
    if isinstance(inner, tuple | list) and len(inner) == 2 and all(isinstance(part, Tensor) for part in inner):
        sizes = " and ".join(str(part.numel()) for part in inner)
        return replace(facts, kind="statistics", sentence=f"a pair of {sizes} numbers: a tokenizer's statistics")
    if isinstance(inner, Inert) and "numpy" in inner.name:
        return replace(facts, kind="latents", sentence="a numpy array in a torch file, as the reference's latents are")
    if isinstance(inner, Tensor):
        return replace(facts, sentence=f"one tensor {list(inner.shape)} in {facts.sentence}")
    try:
        state = tensors_of(content, facts.path.name)
    except ValueError as error:
        return replace(facts, sentence=f"{facts.sentence} without weights ({error})")
    if state.keys() == {"prompt", "negative"}:
        return replace(facts, kind="text embeddings", sentence="a file of text embeddings of 'lyra encode-text'")
    return of_state(replace(facts, wrappers=wrappers), state)


def of_state(facts: FileFacts, state: Mapping[str, Tensor]) -> FileFacts:
    """The facts with what the tensors are and whose."""
    counts: Counter[str] = Counter()
    for tensor in state.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    loader, whose = loader_of(state)
    quantised = any(name.endswith(QUANTISED) for name in state) or "_quantization_metadata" in facts.about
    return replace(
        facts, loader=loader, tensors=len(state), parameters=sum(counts.values()), dtypes=dict(counts.most_common()),
        quantised=quantised, sentence=f"{facts.sentence} with {whose}",
    )  # fmt: skip


def loader_of(state: Mapping[str, Tensor]) -> tuple[Loader, str]:
    """Which loader takes tensors of these names, and what they are, for a person."""
    halves = [half.split(".")[0] for half in HALVES if half in named(state, tokenizer_rules())]
    if halves:
        other = {"encoder": "decoder", "decoder": "encoder"}[halves[0]]
        half = f"; only its {halves[0]}, the {other} belongs beside it" if len(halves) == 1 else ""
        return "tokenizer", LOADERS["tokenizer"] + half
    names = named(state, TEACHER_RULES)
    loader = next((kind for kind, marks in MARKS.items() if all(mark in names for mark in marks)), "none")
    if loader == "teacher":
        channels = names["patch_embed.proj.weight"].shape[-1] // PATCH**2 - 1  # one is the padding mask
        if channels != TEACHER_INPUTS:
            return "none", (
                f"a video model of the Cosmos family that takes {channels} channels, not the {TEACHER_INPUTS} of GEN3C"
            )
    return loader, LOADERS[loader]


def named(state: Mapping[str, Tensor], rules: tuple) -> Mapping[str, Tensor]:
    """The state in our names; none where two would be the same."""
    try:
        return rename(state, rules)
    except ValueError:
        return {}


def damaged(path: Path, what: str) -> FileFacts:
    """The facts of a file that contradicts itself or ends too early."""
    short = "broke off" in what
    return FileFacts(
        path=path, kind="truncated" if short else "damaged", size=path.stat().st_size,
        sentence=f"a file of weights that cannot be read: {what}", remedy=AGAIN if short else "",
    )  # fmt: skip


def of_folder(path: Path) -> FileFacts:
    """The facts of a folder: a diffusers release, shards, one file of weights, cameras."""
    if find_model(path):
        return FileFacts(path=path, kind="cameras", size=0, sentence="a folder of cameras (a COLMAP model)")
    if own := folder_kind(path):
        return FileFacts(path=path, kind=own[0], size=0, sentence=own[1])
    is_diffusers = any((path / name).is_file() for name in ("model_index.json", "config.json"))
    return of_parts(path, "diffusers folder" if is_diffusers else "folder")


def of_parts(path: Path, kind: str) -> FileFacts:
    """The facts of all files that a folder or index stands for."""
    what = "weights in several files" if kind == "sharded" else f"a {kind}"
    try:
        files = parts_of(path)
        each = [of_file(file) for file in files]
    except (ValueError, FileNotFoundError) as error:
        return FileFacts(path=path, kind=kind, size=0, sentence=f"{what} of which no weights can be read: {error}")
    bad = next((facts for facts in each if facts.kind not in WEIGHTS), None)
    size = sum(facts.size for facts in each)
    if bad is not None:
        return FileFacts(path=path, kind=kind, size=size, sentence=f"{what}; {bad.text}", files=files)
    kind = "sharded" if len(files) > 1 and kind == "folder" else kind
    state: dict[str, Tensor] = {}
    try:
        for file in files:
            state |= tensors_of(read_content(file, is_described=True), file.name)
    except ValueError as error:
        sentence = f"{what} of which no weights can be read: {error}"
        return FileFacts(path=path, kind=kind, size=size, sentence=sentence, files=files)
    facts = FileFacts(path=path, kind=kind, size=size, sentence=what, files=files, wrappers=each[0].wrappers)
    return of_state(facts, state)


def description(facts: FileFacts) -> str:
    """What ``lyra info`` prints: the sentence, and the numbers of weights."""
    lines = [facts.text]
    if {"family", "config"} <= facts.about.keys():
        lines += said(facts.about)
    if facts.tensors:
        precisions = ", ".join(f"{name} {count / 1e6:.1f} million" for name, count in facts.dtypes.items())
        lines.append(f"{facts.parameters:,} numbers in {facts.tensors} tensors ({precisions}), {facts.size:,} bytes")
    if facts.wrappers:
        lines.append(f"inside {' > '.join(facts.wrappers)}")
    if facts.quantised:
        lines.append("quantised, with scales that the loader applies")
    if len(facts.files) > 1:
        lines.append("in " + ", ".join(file.name for file in facts.files))
    return "\n".join(lines)


def said(about: Mapping[str, str]) -> list[str]:
    """What a file of ours says of itself."""
    try:
        size = parse_json(about["config"]).get("trained_size")
    except (ValueError, TypeError, AttributeError):
        size = None
    shape = f", for pictures of {size[1]}x{size[0]}" if isinstance(size, list) and len(size) == 2 else ""
    licence = f", {about['licence']}" if about.get("licence") else ""
    return [f"of family '{about['family']}'{shape}{licence}"]
