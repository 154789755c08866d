"""The verbs that make and measure the mini models: what their words mean, and one round of them."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main, parser, scale, training
from lyra_pack.comfyui_lyra.cli.options import progress
from lyra_pack.comfyui_lyra.cli.training import evaluation, plan_of, recon_config, recon_training
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.recon.load import load_recon, save_recon
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer
from lyra_pack.comfyui_lyra.training import train_tokenizer
from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS
from lyra_pack.comfyui_lyra.training.evaluate import Evaluation
from lyra_pack.comfyui_lyra.training.run.checkpoint import Snapshot, save_snapshot
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES
from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining
from lyra_pack.comfyui_lyra.training.world.draw_scenes import SPLITS


def options(words: str):
    return parser().parse_args(words.split())


def test_without_words_the_splat_decoder_is_trained_as_the_shipped_one():
    found = options("train-recon out")
    assert recon_training(found) == ReconTraining()
    assert recon_config(found) is None
    assert plan_of(found, ReconTraining()) == [f"m{i}" for i in range(1, 6)]


def test_ablations_have_words():
    found = options(
        "train-recon out --stages m6,m7 --no-fusion --perceptual 0 --depth 0 --no-pruning --data renders --no-flipped "
        "--all-attention --scenes 30 --pace 0.5 --batch 1 --seed 2"
    )
    assert recon_training(found) == ReconTraining(
        seed=2, scenes=30, moving_scenes=30, pace=0.5, batch=1, data="renders", fusion=False, perceptual=0, depth=0,
        pruning=False, flipped=False,
    )  # fmt: skip
    assert recon_config(found).attention_every == 1
    assert plan_of(found, recon_training(found)) == ["m6", "m7"]
    assert recon_training(options("train-recon out --pace time")).pace is None


def test_stages_may_end_at_steps_of_their_own():
    found = options("train-recon out --stages m4:900,m5:1200")
    m4, m5 = plan_of(found, ReconTraining())
    assert (m4, m5) == (replace(MINI_STAGES["m4"], stop=900), replace(MINI_STAGES["m5"], stop=1200))
    assert plan_of(options("train-recon out --stages m4,m5:1200"), ReconTraining()) == ["m4", m5]
    with pytest.raises(SystemExit):
        options("train-recon out --stages m4:soon")


def test_without_words_all_of_the_test_split_is_evaluated():
    assert evaluation(options("evaluate out")) == Evaluation()
    found = evaluation(options("evaluate out --seeds 900000-900002,7 --lengths large --stride 4 --views 2 --steps 5"))
    assert found.seeds == (900_000, 900_001, 900_002, 7)
    assert (found.lengths, found.stride, found.views, found.settings.steps) == (("large",), 4, (2,), 5)
    assert found.settings.guidance == SDG_SETTINGS.guidance


def test_seeds_may_be_a_split():
    assert options("sdg out --seeds sdg").seeds == tuple(SPLITS["sdg"])


def test_a_scene_is_drawn_as_a_picture_and_as_a_clip(tmp_path, capsys):
    for words in ([], ["--moving"]):
        assert main(["draw-scene", "900001", str(tmp_path), *words]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "clip.mp4", "clip_depth.npz", "picture.png", "picture_depth.npz",
    ]  # fmt: skip
    assert capsys.readouterr().out.split() == [
        str(tmp_path / name) for name in ("picture.png", "picture_depth.npz", "clip.mp4", "clip_depth.npz")
    ]


@pytest.mark.parametrize(
    "words",
    ["sdg out --seeds some", "evaluate out --views one", "train-recon out --data none", "train-recon o --pace a"],
)
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(SystemExit):
        options(words)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--roots sdg --teacher t", "--teacher is about making scenes, and --roots brings some"),
        ("--roots sdg --scenes 3", "--scenes is about making scenes"),
        ("--roots sdg --data renders", "--data is about making scenes"),
        ("--stages m4:900 --pace time --max-seconds 9", "give --stages without steps"),
        ("--stages m5:5,m4:9", "stages m5, m4: they follow each other as m1, m2"),
    ],
)
def test_words_that_would_mean_nothing_beside_others_are_refused(words, problem, tmp_path, capsys):
    assert main(["train-recon", str(tmp_path), *words.split()]) == 1
    assert problem in capsys.readouterr().err


def test_a_run_without_an_end_is_refused(tmp_path, capsys):
    assert main(["train-tokenizer", str(tmp_path)]) == 1
    assert "give a number of steps, a time, or both" in capsys.readouterr().err


@pytest.mark.slow
def test_scenes_are_made_learnt_from_and_measured_verb_by_verb(
    tmp_path, monkeypatch, capsys, small_tokenizer, small_teacher, small_recon
):
    monkeypatch.chdir(tmp_path)
    save_tokenizer(small_tokenizer, tmp_path / "tokenizer.safetensors")
    save_teacher(small_teacher, tmp_path / "teacher.safetensors")
    save_recon(small_recon, tmp_path / "recon.safetensors")
    models = ["--tokenizer", "tokenizer.safetensors", "--teacher", "teacher.safetensors", "--device", "cpu"]
    sdg = ["sdg", "scenes", "--seeds", "10000", "--lengths", "large", "--steps", "2", *models]
    assert main(sdg) == 0, capsys.readouterr().err
    videos = sorted(tmp_path.glob("scenes/*/rgb/*.mp4"))
    assert len(videos) == len(list(tmp_path.glob("scenes/*/depth/*.zip"))) == 6
    before = [file.stat().st_mtime_ns for file in videos]
    assert load_sdg(tmp_path / "scenes", "10000").latents.values.shape == (6, 16, 2, 4, 6)
    (tmp_path / "scenes" / "3" / "depth" / "10000.zip").unlink()  # as a run that was stopped leaves it
    assert main(sdg) == 0, capsys.readouterr().err
    assert [file.stat().st_mtime_ns for file in videos] == before
    assert (tmp_path / "scenes" / "3" / "depth" / "10000.zip").is_file()

    train = ["train-recon", "out", "--roots", "scenes", "--stages", "m1:2", "--batch", "1", *models[:2], *models[4:]]
    assert main(train) == 0, capsys.readouterr().err
    assert main(["train-recon", "further", *train[2:], "--after", "out"]) == 1
    assert "has 2 steps, which count" in capsys.readouterr().err
    assert load_recon(tmp_path / "out" / "mini_recon_static.safetensors").config.family == "mini"

    measure = ["evaluate", "figures", "--static", "recon.safetensors", "--only", "static", "--seeds", "900000"]
    assert main([*measure, "--lengths", "large", "--stride", "8", "--steps", "2", *models]) == 0
    assert "| e student |" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures" / "evaluation.json").read_text())["evaluation"]["stride"] == 8


def test_ctrl_c_while_data_is_made_is_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        yield os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the interruption was not heard")

    monkeypatch.setattr(train_tokenizer, "film_mix", interrupted)
    assert main(["train-tokenizer", str(tmp_path / "out"), "--steps", "2", "--scenes", "1"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "lyra train-tokenizer: stopped; nothing was trained yet, and nothing is kept"


def test_a_training_that_is_stopped_says_what_is_kept(tmp_path, monkeypatch, capsys):
    def stopped(options):
        save_snapshot(options.out, Snapshot(step=7, stage="teacher", weights={"w": torch.zeros(1)}))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run_train_teacher", stopped)
    assert main(["train-teacher", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert said == (
        f"lyra train-teacher: stopped; step 7 is kept in {tmp_path / 'out'}; the same command with --resume goes on "
        "from there\n"
    )


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["sdg", "out", "--seeds", "1"], "finished scenes are kept, and the"),
        (["evaluate", "out"], "that were finished"),
    ],
)
def test_every_verb_that_is_stopped_says_it_in_one_line(words, kept, monkeypatch, capsys):
    def stopped(options):
        on_step = progress("bar")
        on_step(1, 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(scale if words[0] == "sdg" else training, f"run_{words[0]}", stopped)
    assert main(words) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"lyra {words[0]}: stopped; ") and kept in last
