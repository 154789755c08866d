import pytest
import torch
from lyra_pack.comfyui_lyra.bench.scene import Configs, rows
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig


@pytest.mark.slow
def test_a_tiny_scene_goes_all_the_way_and_every_second_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("LYRA_CACHE", str(tmp_path))
    size = {"trained_size": (32, 48), "trained_frames": 9}
    configs = Configs(
        teacher=TeacherConfig(heads=2, head_dim=16, blocks=1, adaln_rank=8, text_dim=12, text_rows=5, **size),
        recon=ReconConfig(width=32, blocks=2, attention_every=2, heads=2, head_size=16, state=8, **size),
        tokenizer=TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1),
    )
    lines = list(rows(torch.device("cpu"), size="full", stored="float32", refining=0.01, configs=configs))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in table} == {6}
    found = {row[0]: row[1:] for row in table[2:]}
    stages = dict.fromkeys(name.split(":")[0] for name in found if ":" in name)
    assert list(stages) == [
        "start", "not of the scene", "load", "paths", "generate", "reconstruct", "refine", "finish", "of it unexplained"
    ]  # fmt: skip
    assert found["generate: pass of the teacher"][0] == "12"  # six paths in two steps
    assert found["generate: wait for a video"][0] == "6" and found["refine: decode"][0] == "6"
    # the first load names the weights, the second one need not
    assert "not of the scene: name weights" in found and "load: name weights" not in found
    seconds = {name: float(row[1]) for name, row in found.items()}
    named = [name for name in seconds if ": " in name and name[:6] != "not of" and name[-8:] != "the rest"]
    assert sum(seconds[name] for name in named) == pytest.approx(seconds["all"], abs=0.005 * (len(named) + 1))


@pytest.mark.parametrize("given", [{"size": "mini"}, {"size": "full", "teacher": "teacher.safetensors"}])
def test_a_random_teacher_is_not_stored_beside_another(given):
    with pytest.raises(ValueError, match="--stored: writes a random teacher of full size"):
        list(rows(torch.device("cpu"), stored="float32", **given))
