"""The splat decoder's training at a size for tests: stages, resuming, ablations, data from memory and from disk."""

import shutil
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS
from lyra_pack.comfyui_lyra.files.media.images import load_image
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.quality.tpips import activations, tokenizer_tpips
from lyra_pack.comfyui_lyra.recon.inputs import EncodeCache, static_inputs
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.training.data.dataset import plain_name
from lyra_pack.comfyui_lyra.training.data.recon_batches import Encoder, FromDisk, by_views, draw_batch, each_alone
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
from lyra_pack.comfyui_lyra.training.data.sdg_memory import film_scenes, make_scenes
from lyra_pack.comfyui_lyra.training.data.streams import Streams
from lyra_pack.comfyui_lyra.training.run.checkpoint import Snapshot, latest, save_snapshot
from lyra_pack.comfyui_lyra.training.run.log import read_log
from lyra_pack.comfyui_lyra.training.run.optimizer import OptimConfig
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES
from lyra_pack.comfyui_lyra.training.train_recon import (
    AllSplats,
    ReconTraining,
    Trainer,
    begun_by,
    decode,
    initial_recon,
    train_recon,
)

SETTINGS = GenerateSettings(steps=2, solver="dpmpp_2m", guidance=0)
SMALL = ReconTraining(scenes=2, moving_scenes=1, validation=1)
OPTIM = OptimConfig(lr=4e-3, warmup=2)


@pytest.fixture
def stage(nano_size):
    def nano(name, stop, **changes):
        frames = {"input_frames": 9, "target_frames": 2, "batch": 1, "max_views": 2, "target_views": 3}
        return replace(MINI_STAGES[name], **{"size": nano_size, "stop": stop, **frames, **changes})

    return nano


@pytest.fixture(scope="module")
def scenes(nano_teacher, nano_tokenizer):
    return sum(make_scenes(nano_teacher, nano_tokenizer, [10_000, 10_001], settings=SETTINGS), [])


@pytest.fixture(scope="module")
def films(nano_tokenizer, nano_size):
    return sum(film_scenes(nano_tokenizer, [10_000, 10_001], size=nano_size, frames=9), [])


@pytest.fixture(scope="module")
def sdg(tmp_path_factory, nano_teacher, nano_tokenizer):
    """A folder with one scene; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("scenes") / "sdg"
    write_sdg(folder, nano_teacher, nano_tokenizer, [10_000], settings=SETTINGS)
    return folder


@pytest.fixture
def trainer(nano_tokenizer, nano_recon):
    return Trainer(SMALL, Encoder(nano_tokenizer, nano_recon, "cpu"), tokenizer_tpips(nano_tokenizer))


def test_new_splats_are_grey_faint_round_and_at_median_depth(trainer, scenes, stage, nano_recon, nano_size):
    network = initial_recon(nano_recon, 0)
    (sample,) = draw_batch(scenes, stage("m4", 1), Streams(0), views=2)
    _, (splats,) = trainer.predict(network, [sample], stage("m4", 1))
    assert len(splats) == 2 * 9 * 4 * 6
    assert splats.means.norm(dim=-1).median().item() == pytest.approx(1, abs=0.15)
    assert splats.opacities.mean().item() == pytest.approx(0.25, abs=0.02)
    assert splats.scales.median().item() == pytest.approx(8 / 2 / (0.8 * nano_size[1]), rel=0.1)
    assert (splats.colors - 0.5).abs().max() < 0.15
    assert splats.quats[:, 0].min() > 0.9


def test_the_mini_preset_starts_at_median_depth_one():
    config = RECON_PRESETS["mini_static"]
    share = torch.sigmoid(torch.tensor(config.distance_shift))
    assert (config.near + share * (config.far - config.near)).item() == pytest.approx(1, abs=0.05)


def test_inputs_of_a_batch_are_those_of_inference(scenes, stage, nano_tokenizer, nano_recon):
    encoder = Encoder(nano_tokenizer, nano_recon, "cpu")
    samples = draw_batch(scenes, stage("m4", 1, batch=2), Streams(3), views=2)
    inputs = encoder.inputs(samples, torch.float32)
    for i, sample in enumerate(samples):
        raw = sample.latents.float() / 0.5 * nano_tokenizer.std[..., None, None]
        # inference takes views in path order and puts the last one first
        order = [1, 0]
        paths = [sample.cameras[j] for j in order]
        expected = static_inputs(nano_recon, nano_tokenizer, raw[order], paths, EncodeCache(0))
        for name in ("latents", "plucker", "origins", "directions"):
            found = getattr(inputs, name)[i]
            torch.testing.assert_close(found, getattr(expected, name)[0], atol=2e-3, rtol=1e-3)
    again = encoder.inputs(samples, torch.float32)
    assert torch.equal(again.plucker, inputs.plucker)


@pytest.mark.parametrize("name", ["m1", "m4", "m5"])
@pytest.mark.slow
def test_the_loss_falls_on_one_batch(name, trainer, films, stage, nano_recon):
    changes = {"size": (16, 32)} if name == "m1" else {}
    here = stage(name, 1, keep=0.5 if name == "m5" else 1.0, **changes)
    network = initial_recon(nano_recon, 0)
    samples = draw_batch(films, here, Streams(0), views=1 if name == "m1" else 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    found = []
    for _ in range(15):
        terms = trainer.losses(network, samples, here)
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(terms["mse"].item())
    assert {"mse", "tpips", "depth"} <= terms.keys() and ("opacity" in terms) == (name == "m5")
    assert found[-1] < 0.7 * found[0]


def test_without_fusion_each_path_is_decoded_as_if_it_were_the_only_one(trainer, scenes, stage, nano_recon):
    network = initial_recon(nano_recon, 0).eval()
    samples = draw_batch(scenes, stage("m4", 1, batch=2), Streams(0), views=2)
    inputs = trainer.encoder.inputs(samples, torch.float32)
    joined = decode(AllSplats(network), inputs, 1.0, fusion=False)
    alone = network(each_alone(inputs), keep=1.0)
    half = len(alone[0])
    assert len(joined) == 2 and len(joined[0]) == 2 * half
    assert torch.equal(joined[1].means[half:], alone[3].means)
    assert not torch.allclose(decode(AllSplats(network), inputs, 1.0, fusion=True)[0].means, joined[0].means)


def test_samples_of_other_numbers_of_views_weigh_by_their_pictures(trainer, scenes, stage, nano_recon):
    here, network = stage("m4", 1), initial_recon(nano_recon, 0)
    one, two = (draw_batch(scenes, here, Streams(v), views=v)[0] for v in (1, 2))
    assert [len(group) for group in by_views([one, two, one])] == [2, 1]
    with torch.no_grad():
        both, *each = (trainer.losses(network, some, here) for some in ([one, two], [one], [two]))
    for name in both:
        weighted = (2 * each[0][name] + 4 * each[1][name]) / 6
        torch.testing.assert_close(both[name], weighted, atol=1e-5, rtol=1e-4)


def test_tpips_sees_levels_of_the_encoder_and_is_zero_for_equal_pictures(nano_tokenizer):
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(1, 2, 32, 48, 3, generator=g)
    levels = activations(nano_tokenizer.autoencoder, pictures[0].permute(0, 3, 1, 2) * 2 - 1)
    assert len(levels) == 3 and all(len(level) == 2 for level in levels)
    assert levels[0].shape[-1] > levels[-1].shape[-1]
    tpips = tokenizer_tpips(nano_tokenizer)
    assert tpips(pictures, pictures).abs().max() < 1e-6 < tpips(pictures, 1 - pictures).min()
    pictures.requires_grad_()
    tpips(pictures, torch.zeros_like(pictures)).sum().backward()
    assert pictures.grad.abs().sum() > 0


@pytest.mark.slow
def test_stages_follow_each_other_and_resume_where_they_were(tmp_path, stage, nano_files, nano_recon):
    tokenizer, teacher = nano_files
    shared = {"config": nano_recon, "training": replace(SMALL, scenes=1), "optim": OPTIM, "settings": SETTINGS}
    plan = [stage("m1", 2, size=(16, 32)), stage("m3", 4), stage("m4", 6)]
    whole = train_recon(tmp_path / "whole", tokenizer, teacher, stages=plan, **shared)
    assert {line["event"] for line in read_log(tmp_path / "whole" / "log.jsonl") if "event" in line} == {"data"}
    snapshot = latest(tmp_path / "whole")
    assert (snapshot.step, snapshot.stage) == (6, "m4")
    assert sorted(tmp_path.glob("whole/recon-*.png")) and load_recon(whole).config.keep == 1
    train_recon(tmp_path / "parts", tokenizer, teacher, stages=plan[:2], **shared)
    train_recon(tmp_path / "parts", tokenizer, teacher, stages=plan, resume=True, **shared)
    parts = latest(tmp_path / "parts")
    assert all(torch.equal(parts.weights[name], tensor) for name, tensor in snapshot.weights.items())

    moving = [stage("m6", 7), stage("m7", 8, keep=0.5)]
    file = train_recon(tmp_path / "moving", tokenizer, teacher, stages=moving, after=tmp_path / "whole", **shared)
    model = load_recon(file)
    assert file.name == "mini_recon_dynamic.safetensors" and model.config.dynamic and model.config.keep == 0.5
    moving = latest(tmp_path / "moving")
    assert moving.step == 8 and moving.weights["patch_time_embed.proj.weight"].abs().max() > 0


@pytest.mark.slow
def test_training_from_disk_holds_scenes_out_and_gives_each_process_samples_of_its_own(
    tmp_path, stage, sdg, nano_teacher, nano_tokenizer, nano_files, nano_recon
):
    shutil.copytree(sdg.parent, tmp_path, dirs_exist_ok=True)
    for seeds, kind, other in (([10_000], "training", "held_out"), ([10_000, 10_068], "held_out", "training")):
        write_sdg(tmp_path / "sdg", nano_teacher, nano_tokenizer, seeds, settings=SETTINGS)
        file = train_recon(
            tmp_path / kind, nano_files[0], roots=[tmp_path / "sdg"], stages=[stage("m4", 3)], config=nano_recon,
            training=SMALL, optim=OPTIM,
        )  # fmt: skip
        assert load_recon(file).config.width == 32
        names = {name for line in read_log(tmp_path / kind / "log.jsonl") for name in line}
        assert f"{kind}_psnr" in names and f"{other}_psnr" not in names

    here = stage("m4", 1, batch=2)
    alone, first, second = (
        FromDisk([tmp_path / "sdg"], tmp_path / f"{rank}-{count}", 0, rank, count)
        for rank, count in ((0, 1), (0, 2), (1, 2))
    )
    (apart,) = first.held_out(here, most=8)
    assert plain_name(apart.scene) == "10068" and len(apart.cameras) == here.max_views
    assert {plain_name(sample.scene) for sample in first(here, Streams(0), 0)} == {"10000"}
    both = first(here, Streams(0), 3) + second(here, Streams(0), 3)
    wanted = alone(here, Streams(0), 6) + alone(here, Streams(0), 7)
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(both, wanted, strict=True))

    (tmp_path / "sdg" / "0" / "pose" / "10068.npz").write_bytes(b"half a file")  # damage costs the held-out scene only
    damaged = FromDisk([tmp_path / "sdg"], tmp_path / "damaged", 0)
    assert damaged.held_out(here, most=8) == [] and len(damaged(here, Streams(0), 0)) == 2
    with pytest.raises(ValueError, match="no step was taken in 20 s: .* give more time"):
        train_recon(
            tmp_path / "late", nano_files[0], roots=[tmp_path / "sdg"], stages=[here], config=nano_recon,
            training=SMALL, optim=OPTIM, max_seconds=20,
        )  # fmt: skip
    assert not list(tmp_path.glob("late/*.safetensors"))


@pytest.mark.slow
def test_whoever_watches_the_steps_may_stop_them_and_go_on_later(tmp_path, stage, sdg, nano_files, nano_recon):
    class Cancelled(BaseException):
        pass

    def cancel(done, total):
        seen.append((done, total))
        if done == 2:
            raise Cancelled

    shared = {
        "roots": [sdg], "stages": [stage("m3", 3), stage("m4", 4)], "config": nano_recon,
        "training": SMALL, "optim": OPTIM,
    }  # fmt: skip
    seen, pictures = [], []
    whole = train_recon(
        tmp_path / "whole", nano_files[0], on_step=lambda *step: seen.append(step), on_picture=pictures.append, **shared
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    files = sorted((tmp_path / "whole").glob("recon-*.png"))
    assert [int(file.stem[6:]) for file in files] == [1, 2, 3, 4] and len(pictures) == 4
    torch.testing.assert_close(pictures[-1], load_image(files[-1]), rtol=0, atol=1 / 255)
    seen = []
    with pytest.raises(Cancelled):
        train_recon(tmp_path / "parts", nano_files[0], on_step=cancel, **shared)
    assert seen == [(1, 4), (2, 4)] and not (tmp_path / "parts" / whole.name).exists()
    seen = []
    parts = train_recon(
        tmp_path / "parts", nano_files[0], resume=True, on_step=lambda *step: seen.append(step), **shared
    )
    assert seen == [(3, 4), (4, 4)]
    found, wanted = load_recon(parts).state_dict(), load_recon(whole).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_in_half_precision_on_a_gpu(tmp_path, stage, nano_files, nano_recon):
    plan = [stage("m1", 4, size=(16, 32)), stage("m4", 8), stage("m5", 12, keep=0.5)]
    shared = {"config": nano_recon, "training": SMALL, "optim": OPTIM, "settings": SETTINGS, "device": "cuda"}
    train_recon(tmp_path / "static", *nano_files, stages=plan, **shared)
    moving = [stage("m6", 16, target_views=12)]
    train_recon(tmp_path / "moving", *nano_files, stages=moving, after=tmp_path / "static", **shared)
    lines = read_log(tmp_path / "moving" / "log.jsonl")
    assert all(line["skipped"] == 0 for line in lines if "skipped" in line)
    assert latest(tmp_path / "moving").step == 16


@pytest.mark.parametrize(
    ("stages", "more", "problem"),
    [
        ([], {}, "no stages"),
        (["m4", "m6"], {"teacher": "x"}, "two runs"),
        (["m4", "m3"], {"teacher": "x"}, "follow each other as m1, m2"),
        (["m4", "m4"], {"teacher": "x"}, "follow each other as m1, m2"),
        ([MINI_STAGES["m3"], replace(MINI_STAGES["m4"], stop=5)], {"teacher": "x"}, "end after the one before"),
        (["m4"], {}, "a teacher that makes"),
        (["m9"], {"teacher": "x"}, "unknown stage 'm9'"),
    ],
)
def test_what_cannot_be_trained_is_refused(stages, more, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        train_recon(tmp_path, tmp_path / "none", stages=stages, **more)


def test_a_run_that_would_have_nothing_to_do_is_refused(tmp_path):
    save_snapshot(tmp_path / "static", Snapshot(step=10, stage="m4", weights={"x": torch.zeros(1)}))
    shared = {"after": tmp_path / "static", "roots": [tmp_path], "training": replace(SMALL, pace=0.01)}
    with pytest.raises(ValueError, match="static has 10 steps, which count, and this run is to end at step 10, so"):
        train_recon(tmp_path / "out", tmp_path / "none", stages=[replace(MINI_STAGES["m6"], stop=10)], **shared)
    assert not (tmp_path / "out").exists()
    assert begun_by(tmp_path / "static", 11).step == begun_by(tmp_path / "static", None).step == 10


def test_ablations_change_the_stages():
    assert ReconTraining(pruning=False).stage("m5").keep == 1 and ReconTraining().stage("m5").keep < 0.3
    assert not ReconTraining(flipped=False).stage("m6").flipped
    assert ReconTraining(pace=0.5).stage("m1").stop == 1250 and ReconTraining(batch=3).stage("m1").batch == 3
