"""Scenes of seeds as a job: what ``lyra sdg`` makes."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..files.places import Place
from ..gen3c.generate import GenerateSettings, in_recipe
from ..gen3c.modes import Mode, in_mode
from ..training.data.sdg_disk import SceneMaker, finished, stored_manifest
from ..training.data.sdg_memory import SDG_SETTINGS
from .models import teacher_on, tokenizer_on
from .work import Make, missing

DECIDED = ("steps", "solver", "guidance", "guidance_range", "step_cache")  # by the job; the rest also by the card


@dataclass(frozen=True, kw_only=True)
class ScenesJob:
    """Scenes of some seeds, in a folder or at a URL; models None are the mini ones."""

    out: str
    seeds: Sequence[int]
    moving: bool = False
    lengths: str | None = None
    steps: int = SDG_SETTINGS.steps
    guidance: float = SDG_SETTINGS.guidance
    mode: Mode = "as set"
    teacher: str | None = None
    tokenizer: str | None = None
    example: int | None = None  # a seed whose scene is whole, which is compared with what would be made

    @property
    def settings(self) -> GenerateSettings:
        """How the teacher samples, as far as the card can."""
        return in_mode(replace(SDG_SETTINGS, steps=self.steps, guidance=self.guidance), self.mode)

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
        """See ``left``; what was made with other models, or on a card that can do more or less, is found with these."""
        stored, wanted = stored_manifest(self.place().beside / f"{seed}.json"), in_recipe(self.settings)
        if stored is None:
            return
        other = [name for name in DECIDED if not is_same(stored.recipe.get(name), wanted.get(name))]
        if other:
            made, asked = (said(recipe, other) for recipe in (stored.recipe, wanted))
            by = "" if self.mode == "as set" else f" by --mode {self.mode}"
            raise ValueError(
                f"{self.out} holds scenes made with {made}, and these are to be made with {asked}{by}; choose another "
                "folder, or go back to what they were made with"
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
        teacher, settings = teacher_on(where, self.teacher, self.settings)
        return SceneMaker(
            root=self.place(), teacher=teacher, tokenizer=tokenizer_on(where, self.tokenizer), moving=self.moving,
            lengths=self.lengths, settings=settings,
        )  # fmt: skip


def is_same(made: str | None, wanted: str | None) -> bool:
    """Whether two values of a recipe are one, however a number is written."""
    try:
        return made == wanted or float(made or "nan") == float(wanted or "nan")
    except ValueError:
        return False


def said(recipe: Mapping[str, str], names: Sequence[str]) -> str:
    """Some settings of a recipe in words."""
    return ", ".join(f"{name} {recipe.get(name, 'as by default')}" for name in names)
