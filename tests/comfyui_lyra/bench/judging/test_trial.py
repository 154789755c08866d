import json
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.bench.judging import trial as judging
from lyra_pack.comfyui_lyra.bench.judging.scenes import BEYOND, between, beyond, load
from lyra_pack.comfyui_lyra.bench.judging.trial import DECODER, Trial, rows_of, run, seeds_of, settings_of
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.demo import Models
from lyra_pack.comfyui_lyra.refine.schedule import RefineSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_models(small_teacher, small_tokenizer, small_recon) -> Models:
    """Random ones; both decoders are the one for moving scenes."""
    return Models(teacher=small_teacher, tokenizer=small_tokenizer, static=small_recon, dynamic=small_recon)


@pytest.fixture(scope="module")
def tried(small_models, tmp_path_factory) -> tuple[Trial, list[str]]:
    """A trial of one moving scene, and what it said."""
    trial = Trial(
        seeds=seeds_of("3:4", "validation"), folder=tmp_path_factory.mktemp("kept"), moving=True, steps=1, stride=8,
        variants=("invented 0.3",),
    )  # fmt: skip
    return trial, list(run(trial, CPU, small_models))


def test_scenes_are_judged_before_and_after_at_every_bullet_time(tried):
    trial, lines = tried
    rows = rows_of(trial.folder / "moving-large.jsonl")
    assert [row["time"] for row in rows] == [0, 3, 4, 5, 8, -1] * 2
    assert {row["name"] for row in rows} == {DECODER, *trial.variants}
    teacher = [row["teacher psnr"] for row in rows if row["time"] == 4]
    assert teacher[1] != teacher[0] and rows[-1]["flicker"] >= 0
    header = next(line for line in lines if line.startswith("| settings"))
    assert "between psnr" in header and "flicker" in header and "hole psnr" not in header
    assert sum(line.startswith(f"| {DECODER} | 0 | 1 | ") for line in lines) == 1


def test_what_is_there_is_not_made_again_and_a_time_limit_holds(tried, small_models, monkeypatch):
    trial, _ = tried
    file = trial.folder / "moving-large.jsonl"
    before = file.read_text()
    monkeypatch.setattr(judging, "make", lambda *_: pytest.fail("made again"))
    list(run(trial, CPU, small_models))
    assert file.read_text() == before
    late = replace(trial, variants=("affine",), minutes=0.0)
    assert next(run(late, CPU, small_models)) == f"0 minutes are over at seed {trial.seeds[0]}, affine"


def test_a_run_that_was_stopped_is_made_again_and_counts_once(tried, small_models, tmp_path):
    trial, _ = tried
    whole = rows_of(trial.folder / "moving-large.jsonl")
    (tmp_path / "moving-large.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole[:8]))
    list(run(replace(trial, folder=tmp_path), CPU, small_models))
    again = rows_of(tmp_path / "moving-large.jsonl")
    assert len((tmp_path / "moving-large.jsonl").read_text().splitlines()) == 14
    assert [row["time"] for row in again] == [row["time"] for row in whole]


def test_cameras_are_disturbed_on_purpose_but_not_the_pictures(tried):
    trial, _ = tried
    scene = load(trial.folder / f"moving-large-{trial.seeds[0]}.safetensors")
    target = judging.targets(scene.films, scene.paths, scene.told(), scene.geometry, scene.times)[0]
    wrong = judging.disturbed(target, scene.splats[0], 1.0, scene.seed)
    away = (wrong.cameras.c2w - target.cameras.c2w)[:, :3, 3].norm(dim=1)
    assert (away > 0).all() and torch.equal(wrong.picture.camera.c2w, target.picture.camera.c2w)
    assert judging.disturbed(target, scene.splats[0], 0.0, 1) is target
    assert replace(trial, disturbed=1.5).kind == "moving-large-disturbed1.5"


def test_cameras_that_nobody_was_shown_lie_between_the_paths_and_beyond_their_ends(tried):
    trial, _ = tried
    paths = load(trial.folder / f"moving-large-{trial.seeds[0]}.safetensors").paths
    for path, left, right in zip(between(paths), paths[:-2], paths[2:], strict=True):
        torch.testing.assert_close(path.c2w[:, :3, 3], (left.c2w[:, :3, 3] + right.c2w[:, :3, 3]) / 2)
        turns = path.c2w[:, :3, :3]
        torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand_as(turns), atol=1e-5, rtol=0)
        assert (torch.linalg.det(turns) > 0).all()
    for camera, path in zip(beyond(paths).c2w, paths, strict=True):
        farthest = (path.c2w[:, :3, 3] - path.c2w[0, :3, 3]).norm(dim=1).max()
        assert (camera[:3, 3] - path.c2w[0, :3, 3]).norm() == pytest.approx(BEYOND * float(farthest), rel=1e-4)


def test_names_stand_for_settings_that_can_be_run():
    trial = Trial(seeds=(1,), folder=None, variants=tuple(judging.VARIANTS), steps=6)
    found = {name: settings_of(trial, name, CPU) for name in trial.variants}
    assert found["as on a GPU"] == replace(RefineSettings(), steps=6) and found["as on a CPU"] == found["default"]
    assert len(set(map(str, found.values()))) == len(found) - 1  # "as on a CPU"
    with pytest.raises(ValueError, match="unknown settings sharper; use some of: default, "):
        replace(trial, variants=("sharper",))
    assert len(seeds_of("0:64", "test")) == 64
    for wrong in ("5", "4:4", "0:65", "a:b"):
        with pytest.raises(ValueError, match=f"scenes '{wrong}' of validation: expected LO:HI within 0:64"):
            seeds_of(wrong, "validation")


def test_the_shell_asks_for_a_trial(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(judging, "run", lambda trial, device: asked.append(trial) or iter(["a table"]))
    words = ["--scenes", "0:2", "--moving", "--sweep", "default,affine", "--minutes", "5", "--keep", str(tmp_path)]
    assert main(["bench", "refine", "--device", "cpu", *words]) == 0
    assert "a table" in capsys.readouterr().out
    assert asked[0].moving and asked[0].variants == ("default", "affine") and len(asked[0].seeds) == 2
    assert main(["bench", "ply", "--device", "cpu", "--scenes", "0:2"]) == 1
    assert "--scenes is for 'lyra bench refine', not for 'ply'" in capsys.readouterr().err


def test_results_are_lines_that_merge(tmp_path):
    file = tmp_path / "still-large.jsonl"
    plain = {"seed": 1, "name": DECODER, "time": 0, "steps": 0, "paths psnr": 20.0, "between psnr": 21.0}
    better = plain | {"name": "default", "steps": 9, "paths psnr": 25.0, "between psnr": 24.0}
    rows = [plain, better, plain | {"seed": 2}, better | {"seed": 2, "between psnr": 20.5}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = list(judging.tables(file))
    assert lines[1] == "still-large, 2 scenes"
    assert lines[-1] == "| default | 9 | 2 | 25.000 | 22.250 | -0.50, +5.00 |"
