"""Scenes made by shards, at URLs, and after stops: the same files as one process makes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import fsspec
import pytest
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.scenes.sdg_manifest import Manifest
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, in_recipe
from lyra_pack.comfyui_lyra.scale import models as of_jobs
from lyra_pack.comfyui_lyra.scale import ray_worker
from lyra_pack.comfyui_lyra.scale.on_ray import ROOT
from lyra_pack.comfyui_lyra.scale.scenes import DECIDED, is_same
from lyra_pack.comfyui_lyra.scale.shards import Shard
from lyra_pack.comfyui_lyra.scale.work import make_here


@pytest.fixture(scope="module")
def whole(tmp_path_factory, models):
    """What one process makes of three seeds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(words(models, out)) == 0
    return out


def words(models, out, *more):
    files = [f"--{name}={models / name}.safetensors" for name in ("teacher", "tokenizer")]
    return ["sdg", str(out), "--seeds", "10000-10002", "--steps", "2", "--device", "cpu", *files, *more]


def test_two_shards_make_what_one_process_makes(whole, models, tmp_path, contents, capsys):
    out = tmp_path / "out"
    assert main(words(models, out, "--missing")) == 1 and capsys.readouterr().out == "10000-10002\n"
    assert main(words(models, out, "--shard", "1/2")) == 0
    assert main(words(models, out, "--missing")) == 1 and capsys.readouterr().out.splitlines()[-1] == "10000,10002"
    assert main(words(models, out, "--shard", "0/2")) == 0
    capsys.readouterr()
    assert main(words(models, out, "--missing")) == 0 and capsys.readouterr().out == ""
    assert contents(out) == contents(whole)
    assert contents(out.with_name("out.lyra")) == contents(whole.with_name("out.lyra"))


BOUND = (
    f"import sys; sys.path.insert(0, {str(Path(ray_worker.__file__).parent)!r}); import ray_worker; "
    f"ray_worker.bind({str(ROOT)!r}); from lyra_pack.comfyui_lyra.cli import main; sys.exit(main(sys.argv[1:]))"
)


def test_two_shards_at_once_make_what_one_process_makes(whole, models, job, tmp_path, contents, long):
    out = tmp_path / "out"
    if long:
        told = [words(models, out, "--shard", f"{index}/2") for index in range(2)]
        running = [subprocess.Popen([sys.executable, "-c", BOUND, *more]) for more in told]
        assert [process.wait() for process in running] == [0, 0]
    else:  # starting a process takes ten seconds: here two makers share one
        parts = [Shard(index=index, count=2).of(job.left()) for index in range(2)]
        with ThreadPoolExecutor(2) as pool:
            made = [done.made for done in pool.map(lambda part: make_here(job, part, "cpu"), parts)]
        assert made == [2, 1]
    assert job.left() == []
    assert contents(out) == contents(whole)
    assert contents(out.with_name("out.lyra")) == contents(whole.with_name("out.lyra"))


def test_a_url_holds_what_a_folder_holds(whole, job, with_out, contents, as_plain):
    memory = fsspec.filesystem("memory")
    memory.rm("/scenes", recursive=True) if memory.exists("/scenes") else None
    there = with_out(job, "memory://scenes/out")
    make_here(there, there.left()[:1], "cpu")
    assert there.left() == ["10001", "10002"]
    there = with_out(there, there.out)
    assert make_here(there, there.left(), "cpu").made == 2 and there.left() == []
    found = {name.removeprefix("/scenes/out/"): memory.cat(name) for name in memory.find("/scenes/out")}
    assert {name: as_plain(name, data) for name, data in found.items()} == contents(whole)
    assert memory.exists("/scenes/out.lyra/10002.json")


def test_other_settings_are_told_before_models_are_loaded(whole, job, with_out, tmp_path):
    other = with_out(job, whole)
    object.__setattr__(other, "steps", 3)
    with pytest.raises(
        ValueError, match="holds scenes made with steps 2, and these are to be made with steps 3; choose"
    ):
        other.left()


def test_a_number_may_be_written_in_two_ways_and_what_the_card_decides_is_left_to_it():
    assert is_same("0", "0.0") and is_same(None, None) and is_same("(0.5, 20.0)", "(0.5, 20.0)")
    assert not is_same("0", "1.0") and not is_same(None, "(0.5, 20.0)") and not is_same("euler", "dpmpp_2m")
    assert {field.name for field in fields(GenerateSettings)} - {*DECIDED} == {
        "seed", "foreground_masking", "attention", "late_attention", "late_below", "linears",
    }  # fmt: skip


def test_no_guidance_asked_for_is_no_guidance_by_default(monkeypatch, tmp_path):
    jobs = []
    monkeypatch.setattr("lyra_pack.comfyui_lyra.cli.scale.run", lambda options, job, *_: jobs.append(job) or 0)
    for more in ((), ("--guidance", "0"), ("--guidance", "0.5")):
        assert main(["sdg", str(tmp_path / "out"), "--seeds", "10000", *more]) == 0
    assert [in_recipe(job.settings)["guidance"] for job in jobs] == ["0", "0", "0.5"]


@pytest.fixture(scope="module")
def fast(tmp_path_factory, models):
    """What one process makes of two seeds in the fast mode."""
    out = tmp_path_factory.mktemp("fast") / "out"
    assert main(words(models, out, *FAST)) == 0
    return out


FAST = ("--mode", "fast", "--seeds", "10000,10001")


def test_a_mode_makes_the_same_alone_and_in_shards_and_its_manifest_tells_it(fast, models, tmp_path, contents, capsys):
    out = tmp_path / "out"
    assert main(words(models, out, *FAST, "--shard", "1/2")) == 0
    assert "10 steps of dpmpp_2m; no guidance; step cache 0.1" in capsys.readouterr().out
    assert main(words(models, out, *FAST, "--missing")) == 1 and capsys.readouterr().out == "10000\n"
    assert main(words(models, out, *FAST, "--shard", "0/2")) == 0
    capsys.readouterr()
    assert main(words(models, out, *FAST, "--missing")) == 0 and capsys.readouterr().out == ""
    assert contents(out) == contents(fast)
    recipe = Manifest.read(out.with_name("out.lyra") / "10001.json").recipe
    assert (recipe["steps"], recipe["guidance"], recipe["step_cache"]) == ("10", "0.0", "0.1")
    assert not recipe.keys() & {"late_attention", "linears"}  # a CPU is exact, and the recipe tells what was done


@pytest.mark.parametrize(("more", "said"), [
    ((), "made with steps 10, guidance 0.0, step_cache 0.1, and these are to be made with steps 2, guidance 1.0, step"),
    (("--mode", "balanced"), "guidance_range (0.5, 20.0), step_cache 0.05 by --mode balanced; choose another folder"),
    (("--mode", "exact", "--missing"), "solver dpmpp_2m, guidance 0.0, step_cache 0.1, and these are to be made with"),
])  # fmt: skip
def test_a_folder_made_in_another_mode_is_refused(more, said, fast, models, capsys):
    assert main(words(models, fast, "--guidance", "1", *more)) == 1
    told = capsys.readouterr()
    assert said in told.err and not told.out


def test_a_card_that_can_do_more_is_told_before_it_makes_anything(fast, models, job, with_out, monkeypatch):
    other = replace(with_out(job, fast), mode="fast")
    assert other.left() == ["10002"]
    monkeypatch.setattr(of_jobs, "as_possible", lambda settings, *where: replace(settings, linears="exact"))
    with pytest.raises(ValueError, match="made with other late_attention and late_below; choose another"):
        make_here(other, other.left(), "cpu")


def test_a_killed_maker_leaves_nothing_in_the_way(job, whole, tmp_path, contents):
    left = tmp_path / "out.lyra" / "unfinished" / "10000" / "0123abcd" / "scene" / "0" / "rgb"
    left.mkdir(parents=True)
    (left / "10000.mp4").write_bytes(b"half")
    make_here(job, Shard(index=0, count=3).of(job.left()), "cpu")
    assert not (tmp_path / "out.lyra" / "unfinished" / "10000").exists()
    assert contents(tmp_path / "out").items() <= contents(whole).items()
