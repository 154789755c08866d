import json
import math

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.images import load_image
from lyra_pack.comfyui_lyra.training.run.log import RunLog, read_log


def test_each_line_is_json_and_a_resumed_run_adds_to_it(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as run:
        run.numbers(1, {"loss": 0.5, "grad_norm": math.nan})
        assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == 0.5  # at once, not at the end
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # killed here
    with RunLog(tmp_path, tensorboard=False) as run:
        run.event(2, "resumed", source="step-00000002")
    first, last = read_log(tmp_path / "log.jsonl")
    assert first["grad_norm"] == "nan" and first["step"] == 1
    assert last["event"] == "resumed" and last["time"] >= first["time"]


def test_pictures_are_written_as_files(tmp_path):
    picture = torch.rand(8, 12, 3, generator=torch.Generator().manual_seed(0))
    with RunLog(tmp_path, tensorboard=False) as run:
        path = run.picture(40, "validation", picture)
    assert path.name == "validation-00000040.png"
    torch.testing.assert_close(load_image(path), picture, rtol=0, atol=1 / 255)
    assert not [p for p in tmp_path.iterdir() if "events" in p.name]


def test_tensorboard_gets_the_same(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path) as run:
        run.numbers(3, {"loss": 0.25})
        run.picture(3, "validation", torch.rand(8, 12, 3))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.25)]
    assert events.Tags()["images"] == ["validation"]
