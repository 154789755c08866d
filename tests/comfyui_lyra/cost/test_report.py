from functools import partial

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS, TEACHER_PRESETS, TOKENIZER_PRESETS
from lyra_pack.comfyui_lyra.cost.recon import count_flops, count_tokens
from lyra_pack.comfyui_lyra.cost.report import (
    Stage,
    decode_bytes,
    duration,
    encode_bytes,
    encode_flops,
    generate_bytes,
    matmul_speed,
    report,
    stages,
    teacher_costs,
)

TOKENIZER, TEACHER = TOKENIZER_PRESETS["lyra"], TEACHER_PRESETS["gen3c"]
STATIC, DYNAMIC = RECON_PRESETS["lyra_static"], RECON_PRESETS["lyra_dynamic"]
SIZE = (121, 704, 1280)


@pytest.fixture(scope="module")
def six():
    """The released shape."""
    return camera_paths(pinhole_camera(1280, 704, 50), PathSettings("six_paths", 121))


def test_work_of_the_released_models_is_what_was_counted():
    # decoder.md 10: 35.7 TFLOP a clip, 1.9 a picture; teacher.md 11.1: 2.21 PFLOP a pass, 14.5 GB of weights
    assert encode_flops(TOKENIZER, *SIZE) / 1e12 == pytest.approx(35.7, abs=0.05)
    assert encode_flops(TOKENIZER, 1, *SIZE[1:]) / 1e12 == pytest.approx(1.9, abs=0.05)
    work, memory = teacher_costs(TEACHER, torch.bfloat16)
    assert work / 1e15 == pytest.approx(2.21, rel=0.02)
    assert 14.5e9 + 4e9 < memory < 20e9


def test_memory_of_the_tokenizer_is_what_was_measured():
    # README: 1.9 GB above weights (105.65 million) and clip, 2.9 GB with the clip that is decoded
    clip, weights = 2 * 3 * 121 * 704 * 1280, 2 * 105.65e6
    assert (encode_bytes(TOKENIZER, *SIZE) - weights - clip) / 1e9 == pytest.approx(1.9, abs=0.05)
    assert (decode_bytes(TOKENIZER, *SIZE[1:]) - weights + clip) / 1e9 == pytest.approx(2.9, abs=0.05)


def test_generation_needs_its_cache_and_either_a_drawn_clip_or_a_step():
    need = partial(generate_bytes, TEACHER, TOKENIZER, dtype=torch.bfloat16)
    pixels, clip = 704 * 1280, 121 * 704 * 1280 * 16
    layers = 2 * 4 * 4096 * 4096 * 2  # the two that are copied ahead
    assert need(1, step_cache=False) == int(1.3 * (46 * pixels + clip + encode_bytes(TOKENIZER, *SIZE) + layers))
    assert need(121, step_cache=False) - need(1, step_cache=False) == pytest.approx(1.3 * 120 * 46 * pixels)
    states = 15.2 * 56_320 * 4096 * 2 + 18 * 4 * 16 * 16 * 88 * 160  # six more than a pass, and the sampler's
    assert need(1, step_cache=True) == pytest.approx(1.3 * (46 * pixels + states + layers))


def test_a_static_scene_encodes_its_cameras_and_a_moving_one_its_times_as_well(six):
    static, moving = (stages(six, tokenizer=TOKENIZER, recon=recon, times=3) for recon in (STATIC, DYNAMIC))
    assert [stage.name for stage in static] == ["encode cameras", "reconstruct splats"]
    assert static[0].flops / 1e12 == pytest.approx(12 * 35.67, rel=0.01)
    assert (moving[0].flops - static[0].flops) / 1e12 == pytest.approx(35.67 + 3 * 1.88, rel=0.01)
    tokens, _ = count_tokens(STATIC, 6, *SIZE)
    assert static[1].flops == count_flops(STATIC, tokens)
    assert moving[1].flops == 3 * count_flops(DYNAMIC, tokens)
    assert moving[1].disk == 3 * static[1].disk == 3 * 2_044_415 * 56


def test_generation_takes_two_passes_a_step_for_every_path_and_chunk(six):
    (once,) = stages(six, teacher=TEACHER)
    assert once.flops == 6 * 70 * teacher_costs(TEACHER, torch.bfloat16)[0]
    assert once.disk == 6 * 4 * 16 * 16 * 88 * 160
    long = camera_paths(pinhole_camera(1280, 704, 50), PathSettings("left", 241))
    (unguided,) = stages(six, teacher=TEACHER, guidance=0.0)
    assert unguided.flops == once.flops / 2
    (twice,) = stages(long, teacher=TEACHER, steps=10)
    assert twice.flops == 2 * 20 * teacher_costs(TEACHER, torch.bfloat16)[0]
    assert twice.disk == 4 * 16 * 32 * 88 * 160


def test_the_report_says_what_was_measured_and_what_is_assumed(six):
    found = stages(six, tokenizer=TOKENIZER, recon=STATIC)
    free = {"memory": int(24e9), "disk": int(1e11)}
    text = report(six, found, speed=1e14, precision="bfloat16", **free)
    assert text.startswith("6 paths of 121 frames of 1280x704\n")
    assert "encode cameras: 428 TFLOP, 21 s, 2.8 GB of memory\n" in text
    assert "reconstruct splats: 503 TFLOP, 10 s" in text and "0.11 GB on disk" in text
    assert "all: 31 s" in text
    assert "Memory: 24.0 GB free. Enough for every stage." in text and "Disk: 100.0 GB free. Enough." in text
    assert "Measured here: 100 TFLOP/s of a matrix product in bfloat16. Assumed, from runs on an H200" in text
    assert "encode cameras 20%, reconstruct splats 50%" in text


def test_too_little_memory_or_disk_is_said(six):
    found = stages(six, tokenizer=TOKENIZER, recon=STATIC)
    text = report(six, found, speed=1e14, precision="bfloat16", memory=int(1e9), disk=int(1e8))
    assert "Memory: 1.0 GB free. 'encode cameras' wants more: other" in text
    assert "Disk: 0.1 GB free. Too little to save it all." in text
    with pytest.raises(ValueError, match="nothing to plan: connect a splat decoder"):
        report(six, [], speed=1e14, precision="bfloat16", memory=0, disk=0)


def test_speed_is_measured_and_times_can_be_read():
    assert 1e8 < matmul_speed(torch.device("cpu"), torch.float32) < 1e14
    stage = Stage(name="a", flops=3e12, share=0.5, bytes=0)
    assert stage.seconds(2e12) == 3
    assert [duration(s) for s in (0.0412, 3, 59.6, 89, 90, 700, 5400, 40000)] == [
        "0.041 s", "3 s", "60 s", "89 s", "1.5 min", "12 min", "1.5 h", "11 h",
    ]  # fmt: skip
