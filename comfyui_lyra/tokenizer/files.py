"""The tokenizer's files in every form: which belong together, their weights and their statistics."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files.reading import parse_json
from ..weights.checkpoints.parts import parts_of
from ..weights.checkpoints.quantised import Scaled
from ..weights.checkpoints.state import read_content, read_state

OTHER_HALF = {"encoder": "decoder", "decoder": "encoder"}
STATISTICS = re.compile(r"(?:^|\.)(?:latent_)?(mean|std)$")  # ours, and those of ComfyUI's repackaged file
NETWORK = re.compile(r"^((module|model|_orig_mod)\.)*network\.")  # in a training's checkpoint
State = dict[str, Tensor | Scaled]


def files_of(chosen: Sequence[Path]) -> tuple[Path, ...]:
    """The files that a choice stands for: those of a folder, and of an encoder the decoder beside it.

    Raises FileNotFoundError for the half that is missing.
    """
    if len(chosen) != 1:
        return tuple(map(Path, chosen))
    file = Path(chosen[0])
    if file.is_dir():
        return parts_of(file, ("", "vae"))
    if file.stem not in OTHER_HALF or not file.is_file():
        return (file,)
    other = file.with_stem(OTHER_HALF[file.stem])
    if not other.is_file():
        raise FileNotFoundError(
            f"{file.name} is half of the tokenizer; {other.name} belongs beside it: download it too"
        )
    return (file, other)


def sources_of(file: Path) -> tuple[Path, ...]:
    """Every file that a tokenizer may be read from where this one is chosen: weights, and the statistics beside."""
    chosen = files_of([file])
    return (*(part for each in chosen for part in parts_of(each)), *statistics_files(chosen[0]))


def read_weights(files: Sequence[Path]) -> tuple[State, list[Tensor]]:
    """The network's tensors by name, and mean and standard deviation (flat or [C, T]) where the files hold them.

    Of a training's checkpoint the network as it was trained, which the release runs, not its running average.
    """
    state: State = {}
    for file in files:
        state |= read_state(file)
    state = {name: value for name, value in state.items() if NETWORK.match(name)} or state
    found = {match[1]: name for name in state if (match := STATISTICS.search(name))}
    if found.keys() != {"mean", "std"}:
        return state, []
    return state, [state.pop(found[which]) for which in ("mean", "std")]


def read_statistics(file: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, T] of raw latents: ``mean_std.pt``, a pair of flat tensors, channel-major."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no {file}; the tokenizer's mean_std.pt belongs beside its weights: download it too")
    pair = read_content(file)
    is_pair = isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)
    if not is_pair or any(not part.numel() or part.numel() % channels for part in pair):
        raise ValueError(f"{Path(file).name} is no pair of tensors with a multiple of {channels} values each")
    mean, std = (statistic.reshape(channels, -1) for statistic in pair)
    return mean, std


def statistics_of(pair: Sequence[Tensor], file: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, T] that ``read_weights`` found, or that lie beside the file."""
    if not pair:
        return statistics_beside(file, channels)
    mean, std = (statistic.float().reshape(channels, -1) for statistic in pair)
    return mean, std


def statistics_beside(file: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, T] from the folder of the weights: mean_std.pt, or diffusers' config.json."""
    config = file.with_name("config.json")
    try:
        stored = parse_json(config.read_bytes())
        pair = [torch.tensor(stored[name]).float().reshape(channels, -1) for name in ("latents_mean", "latents_std")]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # none, or of something else
        return read_statistics(file.with_name("mean_std.pt"), channels)
    return pair[0], pair[1]


def statistics_files(file: Path) -> list[Path]:
    """The files beside the weights that ``statistics_beside`` may read."""
    return [other for name in ("config.json", "mean_std.pt") if (other := file.with_name(name)).is_file()]
