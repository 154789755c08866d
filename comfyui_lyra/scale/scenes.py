"""Scenes of seeds as a job: what ``lyra sdg`` makes."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from ..files.places import Place
from ..gen3c.load import load_teacher
from ..tokenizer.model import load_tokenizer
from ..training.data.sdg_disk import SceneMaker, finished, stored_manifest
from ..training.data.sdg_memory import SDG_SETTINGS
from ..training.train_recon import teacher_dtype
from ..weights.shipped import shipped_model
from .work import Make, missing


@dataclass(frozen=True, kw_only=True)
class ScenesJob:
    """Scenes of some seeds, in a folder or at a URL; models None are the mini ones."""

    out: str
    seeds: Sequence[int]
    moving: bool = False
    lengths: str | None = None
    steps: int = SDG_SETTINGS.steps
    guidance: float = SDG_SETTINGS.guidance
    teacher: str | None = None
    tokenizer: str | None = None
    example: int | None = None  # a seed whose scene is whole, which is compared with what would be made

    def place(self) -> Place:
        """Where the scenes lie."""
        return Place.of(self.out)

    def left(self) -> list[str]:
        """Seeds whose scenes are not whole. ValueError if one that is was sampled in another way."""
        there = self.there()
        if (done := self.first_of(there)) is not None:
            self.check_settings(done)
        return list(missing(map(str, self.seeds), there))

    def there(self) -> set[str]:
        """Seeds whose scenes are whole."""
        return finished(self.place(), self.moving)

    def first_of(self, there: Container[str]) -> int | None:
        """The first of the seeds whose scene is whole: one speaks for all."""
        return next((seed for seed in self.seeds if str(seed) in there), None)

    def briefed(self) -> "ScenesJob":
        """Without the seeds, of which there may be a million."""
        return replace(self, seeds=(), example=self.first_of(self.there()))

    def check_settings(self, seed: int) -> None:
        """See ``left``; what was made with other models is found once these are loaded."""
        stored = stored_manifest(self.place().beside / f"{seed}.json")
        for name in ("steps", "guidance"):
            made, wanted = stored and stored.recipe.get(name), getattr(self, name)
            if made is not None and float(made) != wanted:
                raise ValueError(
                    f"{self.out} holds scenes made with {name} {made}, and these are to be made with {wanted}; choose "
                    "another folder, or go back to what they were made with"
                )

    def maker(self, device: str) -> Make:
        """Makes the scene of a seed. ValueError if the example was made from other things."""
        scenes = self.scene_maker(device)
        if self.example is not None:
            scenes.check(self.example)
        return lambda seed: scenes(int(seed))

    def scene_maker(self, device: str) -> SceneMaker:
        """The models, where they compute."""
        where = torch.device(device)
        teacher = load_teacher(
            Path(self.teacher) if self.teacher else shipped_model("teacher"), dtype=teacher_dtype(where)
        )
        cast(nn.Module, teacher.network).to(where).requires_grad_(False)
        tokenizer = load_tokenizer(Path(self.tokenizer) if self.tokenizer else shipped_model("tokenizer"))
        return SceneMaker(
            root=self.place(), teacher=teacher, tokenizer=tokenizer.float().to(where), moving=self.moving,
            lengths=self.lengths, settings=replace(SDG_SETTINGS, steps=self.steps, guidance=self.guidance),
        )  # fmt: skip
