"""Flags made from dataclasses, and the flags that a release has promised."""

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings
from lyra_pack.comfyui_lyra.cli import parser
from lyra_pack.comfyui_lyra.cli.fields import add_fields, filled
from lyra_pack.comfyui_lyra.cli.options import path_settings
from lyra_pack.comfyui_lyra.configs import told
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.refine.schedule import RefineSettings
from lyra_pack.comfyui_lyra.splats.render import RenderSettings
from lyra_pack.comfyui_lyra.training.evaluate import Evaluation
from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining
from lyra_pack.comfyui_lyra.training.train_teacher import TeacherTraining
from lyra_pack.comfyui_lyra.training.train_tokenizer import TokenizerTraining

PROMISED = Path(__file__).parents[2] / "data" / "shell_flags.json"  # verb -> flag -> default, of the last release
BACKED = (  # verb, its words, settings
    ("path", ["out"], PathSettings()),
    ("generate", ["geometry", "out"], GenerateSettings()),
    ("render", ["a.ply", "out"], RenderSettings()),
    ("refine", ["a.ply", "b.ply", "--latents", "l", "--steps", "300"], RefineSettings()),
    ("train-tokenizer", ["out"], TokenizerTraining()),
    ("train-teacher", ["out"], TeacherTraining()),
    ("train-recon", ["out"], ReconTraining()),
)


@dataclass(frozen=True, kw_only=True)
class Brush:
    width: float = told(2.5, "millimetres")
    tip: Literal["round", "flat"] = told("round", "its form")
    is_wet: bool = told(True, "paint with a dry brush")
    dips: tuple[int, ...] = (1, 3)
    hairs: int | None = None


def brush_of(*words: str, unset: bool = False) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    shell = argparse.ArgumentParser()
    add_fields(shell, Brush, *(field.name for field in fields(Brush)), unset=unset)
    return shell.parse_args(words), shell


def verbs() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser()._actions if action.dest == "verb")
    return dict(found.choices)


@pytest.mark.parametrize("unset", [False, True])
def test_flags_that_are_not_given_leave_the_settings_as_they_are(unset):
    assert filled(Brush(), brush_of(unset=unset)[0]) == Brush()
    other = Brush(width=1.0, tip="flat", is_wet=False, dips=(7,), hairs=4)
    assert filled(other, brush_of(unset=True)[0]) == other


def test_flags_that_are_given_arrive_in_the_settings():
    options, _ = brush_of("--width", "0.5", "--tip", "flat", "--no-is-wet", "--dips", "0-4/2,9", "--hairs", "0")
    assert filled(Brush(), options) == Brush(width=0.5, tip="flat", is_wet=False, dips=(0, 2, 4, 9), hairs=0)
    assert filled(Brush(), options, hairs=None).hairs is None


@pytest.mark.parametrize("words", ["--tip oval", "--width thin", "--dips a,b", "--hairs 2.5", "--is-wet"])
def test_what_a_field_cannot_hold_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        brush_of(*words.split())
    assert words.split()[0] in capsys.readouterr().err


def test_help_is_the_fields_own():
    said = brush_of()[1].format_help()
    assert all(field.metadata["help"] in said for field in fields(Brush) if field.metadata)


@pytest.mark.parametrize(("verb", "words", "settings"), BACKED, ids=[each[0] for each in BACKED])
def test_a_verb_without_flags_uses_the_defaults_of_its_settings(verb, words, settings):
    assert filled(settings, parser().parse_args([verb, *words])) == settings


def test_every_flag_of_settings_can_be_given():
    words = "train-recon out --no-fusion --perceptual 0 --depth 1 --no-pruning --data renders --no-flipped --seed 5"
    found = filled(ReconTraining(), parser().parse_args([*words.split(), "--batch", "3", "--scenes", "0"]))
    assert found == ReconTraining(
        fusion=False, perceptual=0.0, depth=1.0, pruning=False, data="renders", flipped=False, seed=5, batch=3, scenes=0
    )
    words = "evaluate out --stride 8 --views 2,4 --no-fusion --steps 3 --guidance 0.5"
    options = parser().parse_args(words.split())
    shown = filled(Evaluation(), options, lengths=("large",))
    assert (shown.stride, shown.views, shown.fusion) == (8, (2, 4), False)
    assert filled(GenerateSettings(), options) == GenerateSettings(steps=3, guidance=0.5)


def test_the_seed_of_paths_is_not_the_seed_of_noise():
    words = "generate geometry out --seed 7 --path-seed 9 --preset up --movement 2"
    options = parser().parse_args(words.split())
    assert path_settings(options) == PathSettings(preset="up", movement=2.0, seed=9)
    assert filled(GenerateSettings(), options) == GenerateSettings(seed=7)


def test_verbs_and_flags_of_the_last_release_are_there_with_their_defaults():
    found = {
        name: {flag: str(action.default) for action in verb._actions for flag in action.option_strings or [action.dest]}
        for name, verb in verbs().items()
    }
    for verb, flags in json.loads(PROMISED.read_text(encoding="utf-8")).items():
        for flag, default in flags.items():
            assert flag in found[verb], f"lyra {verb} has lost {flag}"
            if flag not in ("--device", "--dtype"):  # by the machine
                assert found[verb][flag] == default, f"lyra {verb} {flag}"
