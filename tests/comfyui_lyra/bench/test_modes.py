import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lyra_pack.comfyui_lyra.bench import modes
from lyra_pack.comfyui_lyra.bench.judging import modes as judging
from lyra_pack.comfyui_lyra.bench.modes import VARIANTS, relative, rows
from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.media.video import load_video
from lyra_pack.comfyui_lyra.gen3c.generate import generate
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer

CPU = torch.device("cpu")
BRIEF = {
    "exact": replace(modes.EXACT, steps=3),
    "second order": replace(modes.ORDER, steps=2),
    "+ sparse attention": replace(modes.ORDER, steps=2, late_attention="sol-1.0", late_below=20.0),
}


@pytest.fixture
def files(tmp_path, small_teacher, small_tokenizer, monkeypatch):
    """Files of small models, and three variants."""
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modes, "VARIANTS", BRIEF)
    given = {"teacher": tmp_path / "teacher.safetensors", "tokenizer": tmp_path / "tokenizer.safetensors"}
    save_teacher(small_teacher, given["teacher"])
    save_tokenizer(small_tokenizer, given["tokenizer"])
    return given


def test_every_variant_is_timed_and_compared_with_exact_and_not_made_again(tmp_path, monkeypatch):
    size = {"trained_size": (32, 48), "trained_frames": 9}
    config = TeacherConfig(heads=2, head_dim=16, blocks=2, adaln_rank=8, text_dim=12, text_rows=5, **size)
    tokenizer = TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1)
    given = {"out": tmp_path, "size": "full", "config": config, "tokenizer_config": tokenizer}
    told = list(rows(CPU, **given))
    lines = [line.strip("|").split("|") for line in told]
    assert [cells[0].strip() for cells in lines[2:]] == list(VARIANTS)
    assert all(len(cells) == 5 for cells in lines)
    errors = [float(cells[3]) for cells in lines[2:]]
    assert errors[0] == 0 and all(error > 0 for error in errors[1:])
    (tmp_path / "fast.safetensors").unlink()
    made = []
    monkeypatch.setattr(modes, "generate", lambda *args, **given: made.append(1) or generate(*args, **given))
    again = list(rows(CPU, **given))
    assert again[:-1] == told[:-1] and again[-1].split("|")[4] == told[-1].split("|")[4]
    assert len(made) == 2  # kernels are warmed up, and what was missing is made


def test_the_frame_that_is_given_does_not_count():
    exact = torch.ones(1, 16, 3, 2, 2)
    found = exact.clone()
    found[:, :, 0] = 5
    assert relative(found, exact) == 0
    found[:, :, 1:] = 1.5
    assert relative(found, exact) == 0.5


def test_of_files_the_clips_stand_side_by_side_exact_on_the_left(files, tmp_path, small_tokenizer):
    out = tmp_path / "out"
    assert len(list(rows(CPU, **files, out=out))) == 2 + len(BRIEF)
    videos = {file.stem: load_video(file)[0] for file in out.glob("*.mp4")}
    assert sorted(videos) == ["exact", "second_order", "sparse_attention"]
    assert {video.shape for video in videos.values()} == {(9, 32, 96, 3)}
    left, right = videos["second_order"].split(48, dim=2)
    same = videos["exact"].split(48, dim=2)
    assert (same[0] - same[1]).abs().mean() < 0.02 and (left - same[0]).abs().mean() < 0.02
    assert (right - left).abs().mean() > 2 * (same[0] - same[1]).abs().mean()


def test_another_tokenizer_makes_other_clips(files, tmp_path, small_tokenizer, monkeypatch):
    made, out = [], tmp_path / "out"
    monkeypatch.setattr(modes, "VARIANTS", {"exact": BRIEF["exact"]})
    list(rows(CPU, **files, out=out))
    monkeypatch.setattr(modes, "generate", lambda *args, **given: made.append(1) or generate(*args, **given))
    list(rows(CPU, **files, out=out))
    assert not made
    same = small_tokenizer
    other = type(same)(same.config, same.autoencoder, same.mean + 1, same.std)
    save_tokenizer(other, files["tokenizer"])
    list(rows(CPU, **files, out=out))
    assert len(made) == 2  # its kernels are warmed up, and it is made


def test_small_models_are_judged_by_the_truth_of_their_world(files, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "SCENES", {"cpu": 2, "cuda": 2})
    title, _, head, _, *table = rows(CPU, **files, size="mini")
    assert title.startswith("2 scenes of the mini world")
    columns, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in (head, *table))
    assert [row[0] for row in cells] == ["exact", "second order"]  # sparse attention cannot run here, and is no third
    found = [dict(zip(columns, row, strict=True)) for row in cells]
    assert float(found[0]["relative error"]) == 0 < float(found[1]["relative error"])
    for row in found:
        assert 3 < float(row["PSNR, dB"]) < 40 and 3 < float(row["in holes"]) < 40 and 0 < float(row["TPIPS"]) < 2
    with pytest.raises(ValueError, match="--out: latents and videos are kept of the full size"):
        list(rows(CPU, **files, size="mini", out=tmp_path))


def test_what_is_truly_seen_begins_with_the_picture():
    shot = judging.Shot.of(800_000, 7, TeacherConfig(trained_size=(32, 48), trained_frames=9), CPU)
    picture = (shot.geometry.frames[0] * 255).round()
    assert shot.path.name == "right" and (shot.truth[0].float() - picture).abs().max() <= 1
    assert shot.visible[0].float().mean() > 0.95 > shot.visible[-1].float().mean()


def test_a_teacher_is_made_anew_for_other_products_alone_and_the_one_before_is_gone():
    made = []

    def make():
        assert not any(network() for network in made), "the one before is still held"
        network = torch.nn.Identity()
        network.linears = "exact"
        network.itself = [network]  # a circle, as a step cache's hooks make
        made.append(weakref.ref(network))
        return SimpleNamespace(network=network)

    model = modes.Renewed(make)
    for linears, count in (("exact", 1), ("int8", 1), ("int8", 1), ("fp8", 2), ("exact", 3)):
        model.able(replace(modes.EXACT, linears=linears)).network.linears = linears
        assert len(made) == count
