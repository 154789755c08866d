from dataclasses import asdict, replace
from types import MappingProxyType

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings  # noqa: E402
from lyra_pack.comfyui_lyra.recon.load import load_recon  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer  # noqa: E402
from lyra_pack.comfyui_lyra.training import train_recon as trainer  # noqa: E402
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg  # noqa: E402
from lyra_pack.comfyui_lyra.training.run.checkpoint import Snapshot, latest, save_snapshot  # noqa: E402
from lyra_pack.nodes.comfy import folders as places
from lyra_pack.nodes.comfy import progress
from lyra_pack.nodes.models.load import LoadRecon, LoadTokenizer  # noqa: E402
from lyra_pack.nodes.training import train  # noqa: E402
from lyra_pack.nodes.training.train import TrainRecon  # noqa: E402
from PIL import Image  # noqa: E402

SIZE = (32, 48)
WIDGETS = {
    "dataset": "scenes", "preset": "static", "minutes": 0.0, "name": "mine", "resume": True, "start_from": "",
    "batch": 1, "flipped": False, "seed": 0,
}  # fmt: skip


@pytest.fixture
def tokenizer(models, tiny_tokenizer, tiny_teacher, tiny_recon, monkeypatch):
    """The tiny tokenizer as loaded, a scene to learn from, and stages that fit it."""
    save_tokenizer(tiny_tokenizer, models / "vae" / "tiny.safetensors")
    write_sdg(
        models.parent / "output" / "scenes", tiny_teacher, tiny_tokenizer, [10_000],
        settings=GenerateSettings(steps=2, solver="dpmpp_2m", guidance=0),
    )  # fmt: skip
    small = {"size": SIZE, "input_frames": 9, "target_frames": 2, "target_views": 2, "max_views": 2}
    stages = {name: replace(stage, **small) for name, stage in trainer.MINI_STAGES.items()}
    monkeypatch.setattr(trainer, "MINI_STAGES", MappingProxyType(stages))
    presets = {f"mini_{kind}": replace(tiny_recon.config, dynamic=kind == "dynamic") for kind in train.STAGES}
    monkeypatch.setattr(trainer, "RECON_PRESETS", MappingProxyType(presets))
    return LoadTokenizer.execute("tiny.safetensors", "auto").args[0]


@pytest.mark.slow
def test_a_decoder_is_trained_goes_on_after_a_cancel_and_can_be_loaded(tokenizer, models, monkeypatch):
    folder = models.parent / "output" / "lyra" / "decoders" / "mine"
    real, shown = progress.steps, []

    def cancelling(label):
        report = real(label)

        def on_step(done, total, preview):
            shown.append(preview)
            if done == 4:
                management.interrupt_current_processing(True)
            report(done, total, preview)

        return on_step

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(progress, "steps", cancelling)
        with pytest.raises(management.InterruptProcessingException):
            TrainRecon.execute(tokenizer, steps=10, **WIDGETS)
    assert latest(folder).step == 4 and not list(folder.glob("mini_recon*"))
    kind, picture, _ = shown[0]
    assert kind == "JPEG" and picture.size == Image.open(folder / "recon-00000001.png").size

    with torch.inference_mode():  # as ComfyUI runs nodes
        model, preview = TrainRecon.execute(tokenizer, steps=10, **WIDGETS).args
    assert latest(folder).step == 10
    assert preview.ndim == 4 and preview.shape[-1] == 3 and preview.std() > 0.01
    saved = load_recon(folder / "mini_recon_static.safetensors")
    assert model.config == saved.config and model.config.keep < 0.2
    weights = model.network.state_dict()
    assert all(torch.equal(weights[name], weight.float()) for name, weight in saved.state_dict().items())
    offered = next(i for i in LoadRecon.define_schema().inputs if i.id == "file").options
    assert offered == ["mine/mini_recon_static.safetensors"]
    assert train.summary(folder).startswith("step 10: PSNR") and train.summary(folder).endswith("the training scenes")

    TrainRecon.execute(tokenizer, steps=12, **WIDGETS)  # further
    assert latest(folder).step == 12
    TrainRecon.execute(tokenizer, steps=12, **WIDGETS)  # nothing to do
    assert latest(folder).step == 12 and "training_psnr" in (folder / "m5_metrics.json").read_text()
    TrainRecon.execute(tokenizer, steps=10, **WIDGETS | {"resume": False})
    assert latest(folder.with_name("mine_2")).step == 10

    moving = WIDGETS | {"preset": "dynamic", "name": "moving", "start_from": "mine_2"}
    model, _ = TrainRecon.execute(tokenizer, steps=13, **moving).args
    assert model.config.dynamic and latest(folder.with_name("moving")).step == 13


def test_a_run_is_made_again_while_time_ended_it_and_when_scenes_have_come(models):
    scenes, folder = models.parent / "output" / "lyra", models.parent / "output" / "lyra" / "decoders" / "mine"
    scenes.mkdir(parents=True, exist_ok=True)
    (scenes / "clip.mp4").write_bytes(b"")

    def fingerprints():
        timed = WIDGETS | {"dataset": "lyra", "minutes": 1.0}
        changes = ({}, {"minutes": 0.0}, {"resume": False}, {"dataset": None})
        return [TrainRecon.fingerprint_inputs(steps=9, **timed | change) for change in changes]

    before = fingerprints()
    save_snapshot(folder, Snapshot(step=5, stage="m1", weights={"x": torch.zeros(1)}))
    ended = fingerprints()
    assert [one == two for one, two in zip(before, ended, strict=True)] == [False, True, True, False]
    assert ended == fingerprints()
    (scenes / "more.mp4").write_bytes(b"")
    assert [one == two for one, two in zip(ended, fingerprints(), strict=True)] == [False, False, False, True]


def test_a_dataset_that_is_not_there_is_said_before_the_run(folders):
    assert "'gone' is neither in" in TrainRecon.validate_inputs("gone")
    assert TrainRecon.validate_inputs() is True


def test_a_name_stays_below_its_folder(folders):
    for name in ("", "..", "a/b", "a\\b"):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            places.decoder_folder(name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"preset": "quick"}, "stages m1:.* instead of m1:"),
        ({"preset": "dynamic"}, "stages m1:.* instead of m6:"),
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"batch": 2}, "batch 1 instead of 2"),
        ({"flipped": True}, "flipped False instead of True"),
    ],
)
def test_another_training_in_the_same_folder_says_what_differs(tokenizer, models, change, named):
    """Of the folder of a run, only its checkpoint counts here: nothing is trained."""
    folder = places.decoder_folder("mine")
    begun = WIDGETS | {"name": "mine"}
    stages = [trainer.MINI_STAGES[name] for name in train.STAGES[begun["preset"]]]
    training = trainer.ReconTraining(pace=train.pace("static", 10), batch=1, flipped=False, seed=0)
    config = {"training": asdict(training), "stages": [stage.name for stage in stages], "stops": [9] * len(stages)}
    save_snapshot(folder, Snapshot(step=10, stage="m5", weights={"x": torch.zeros(1)}, config=config))
    with pytest.raises(ValueError, match=f"mine was begun with .*{named}.*; resume with the same, or train in another"):
        TrainRecon.execute(tokenizer, steps=10, **begun | change)
