import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.rope import RotaryTables, axis_angles, grid_angles
from lyra_pack.kernels_glue.tokens import rotate
from torch.testing import assert_close


@pytest.mark.golden("teacher/rope_full")
@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_angles_equal_the_reference(golden, precision, dtype):
    meta = golden.meta
    angles = axis_angles((meta["T"], meta["H"], meta["W"]), meta["head_dim"], float(meta["fps"]), dtype)
    for axis, ours in zip("thw", angles, strict=True):
        reference = golden[f"{precision}_{axis}"]
        assert_close(ours, reference, rtol=0, atol=0 if dtype == torch.bfloat16 else 2e-5)


@pytest.mark.golden("teacher/dit_forward")
@pytest.mark.parametrize("case", ["case1", "case2"])
def test_token_angles_equal_the_reference(golden, case):
    config = golden.meta["config"]
    fps = float(golden.meta["cases"][case].split("fps ")[1].split(",")[0])
    grid = (config["T"], config["H"] // 2, config["W"] // 2)
    angles = grid_angles(grid, config["head_dim"], fps, torch.float32)
    assert_close(torch.cat((angles, angles), dim=-1)[:, None, None], golden[f"{case}.rope_freqs"], rtol=0, atol=2e-5)


def test_tables_are_kept_until_another_grid_fps_or_device_is_asked_for():
    tables, cpu = RotaryTables(24, torch.bfloat16), torch.device("cpu")
    first = tables((2, 3, 4), 24.0, cpu)
    assert tables((2, 3, 4), 24.0, cpu) is first
    assert not torch.equal(tables((2, 3, 4), 12.0, cpu)[0], first[0])
    assert tables((2, 4, 3), 12.0, cpu)[0].shape == (1, 24, 1, 12)
    assert tables((2, 3, 4), 24.0, torch.device("meta"))[0].device.type == "meta"
    assert not tables.state_dict()


def test_scores_depend_on_the_distance_of_two_tokens_only():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=g)
    angles = grid_angles((1, 1, 9), 24, 24.0, torch.float32)[None, :, None]
    q, k = (rotate(x.expand(1, 9, 1, 24), angles.cos(), angles.sin())[0, :, 0] for x in (q, k))
    scores = q @ k.T
    assert_close(scores[:-1, :-1], scores[1:, 1:])
    assert not torch.isclose(scores[0, 0], scores[0, 1])
