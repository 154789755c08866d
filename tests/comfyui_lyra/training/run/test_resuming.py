"""A resume compares all that decides the result, for every trainer."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from lyra_pack.comfyui_lyra.training.run.resuming import FREE, check_goes_on, check_same
from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining
from lyra_pack.comfyui_lyra.training.train_teacher import TeacherTraining
from lyra_pack.comfyui_lyra.training.train_tokenizer import TokenizerTraining

OUT = Path("decoders/mine")
FURTHER = {"steps", "pace", "validation", "sampling_steps"}  # of the settings: how far, and what is looked at


def config(training=None, **more):
    about = {"training": asdict(training or ReconTraining()), "tokenizer": "a" * 16, "stages": ["m1"], "stops": [9]}
    return about | more


def other_than(value):
    """Another value, of any kind."""
    if isinstance(value, bool):
        return not value
    return "other" if value is None or isinstance(value, str) else value * 2 + type(value)((1,) if value == () else 1)


@pytest.mark.parametrize("kind", [ReconTraining, TeacherTraining, TokenizerTraining])
def test_every_setting_of_every_trainer_is_compared_and_named(kind):
    for field in fields(kind):
        before = getattr(kind(), field.name)
        after = (1, 2) if isinstance(before, tuple) else other_than(before)
        now = config(replace(kind(), **{field.name: after}))
        if field.name in FURTHER:
            check_same(config(kind()), now, OUT)
            continue
        with pytest.raises(
            ValueError, match=f"decoders.mine was begun with {field.name} .* instead of .*; resume with"
        ):
            check_same(config(kind()), now, OUT)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"recon": {"width": 32}}, {"recon": {"width": 64}}, "recon.width 32 instead of 64"),
        ({"tokenizer": {"channels": 1}}, {"tokenizer": {"channels": 2}}, "another tokenizer"),
        ({"teacher": None}, {"teacher": "abc"}, "another teacher"),
        ({"optim": {"lr": 1e-3}}, {"optim": {"lr": 1e-4}}, "optim.lr 0.001 instead of 0.0001"),
        ({"roots": ["day"]}, {"roots": ["day", "night"]}, "roots day instead of day,night"),
        ({"after": "static"}, {"after": None}, "after static instead of None"),
        ({"init_from": None}, {"init_from": "abc"}, "init_from None instead of abc"),
        ({}, {"results": 2}, "results 1 instead of 2"),
        ({"stages": ["m1"]}, {"stages": ["m6", "m7"], "stops": [5, 9]}, "stages m1:9 instead of m6:5,m7:9"),
        ({"stages": ["m1"]}, {"stages": ["m1", "m2"], "stops": [4, 9]}, "stages m1:9 instead of m1:4,m2:9"),
        (
            {"stages": ["m1"], "stops": None},
            {"stages": ["m1", "m2"], "stops": [9, 12]},
            "stages m1 instead of m1:9,m2:12",
        ),
    ],
)
def test_what_else_decides_the_result_is_compared(before, now, named):
    with pytest.raises(ValueError) as error:
        check_same(config(**before), config(**now), OUT)
    assert f"was begun with {named}; resume with the same, or train in another folder" in str(error.value)


def test_a_run_goes_further_and_through_more_stages_than_it_began_with():
    check_same(config(), config(stops=[20]), OUT)
    check_same(config(), config(stages=["m1", "m3"], stops=[9, 12], recon={"keep": 0.2}), OUT)
    check_same(config(optim={"steps": 5, "begin": 0}), config(optim={"steps": 9, "begin": 5}), OUT)
    assert "recon.keep" in FREE


def test_a_checkpoint_of_an_older_version_is_compared_by_what_it_says():
    old = {"training": {"seed": 0, "gone": 1}, "tokenizer": "a" * 16, "stages": ["m1"]}
    check_same(old, config(results=1, optim={"lr": 1}), OUT)
    with pytest.raises(ValueError, match="seed 1 instead of 0"):
        check_same(old | {"training": {"seed": 1}}, config(results=1), OUT)


def test_a_run_has_not_more_steps_than_asked_for():
    check_goes_on(5, 5, OUT)
    check_goes_on(5, None, OUT)
    with pytest.raises(ValueError, match="has 6 steps already, and this run is to end at step 5; ask for 6 at least"):
        check_goes_on(6, 5, OUT)
