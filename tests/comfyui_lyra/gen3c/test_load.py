from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TeacherConfig
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher, save_teacher
from lyra_pack.comfyui_lyra.weights import fingerprint


def test_a_saved_teacher_describes_itself(tmp_path, small_teacher):
    save_teacher(replace(small_teacher, licence="Apache-2.0"), tmp_path / "mini.safetensors")
    found = load_teacher(tmp_path / "mini.safetensors")
    assert (found.config, found.licence, found.dtype) == (small_teacher.config, "Apache-2.0", torch.float32)
    assert fingerprint(found.network.state_dict()) == found.fingerprint
    assert found.identity == f"{found.fingerprint}-float32"
    x, c_noise, text = torch.ones(1, 81, 2, 4, 6), torch.zeros(1), torch.ones(1, 5, 12)
    with torch.no_grad():
        torch.testing.assert_close(found.network(x, c_noise, text), small_teacher.network(x, c_noise, text))


def test_precision_is_cast_and_is_part_of_the_identity(tmp_path, small_teacher, caplog):
    save_teacher(small_teacher, tmp_path / "mini.safetensors")
    stored = load_teacher(tmp_path / "mini.safetensors")
    half = load_teacher(tmp_path / "mini.safetensors", dtype=torch.bfloat16)
    assert half.network.proj_out.weight.dtype == half.dtype == torch.bfloat16
    assert half.fingerprint == stored.fingerprint and half.identity != stored.identity
    assert stored.device == torch.device("cpu")
    assert not caplog.messages  # diffusers would warn of the cast


@pytest.mark.golden("teacher/dit_weights")
def test_a_released_checkpoint_loads_by_its_own_names(tmp_path, golden):
    torch.save({"model": {name: golden[name] for name in golden}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt does not fit GEN3C"):  # the released size is the default
        load_teacher(tmp_path / "model.pt")
    meta = golden.meta["config"]
    config = TeacherConfig(
        heads=meta["heads"], head_dim=meta["head_dim"], blocks=meta["blocks"], adaln_rank=meta["lora"],
        text_dim=meta["ctx"], text_rows=meta["L"], max_grid=(meta["max_t"], meta["max_h"], meta["max_w"]),
    )  # fmt: skip
    found = load_teacher(tmp_path / "model.pt", config)
    assert len(found.network.transformer_blocks) == meta["blocks"] and found.licence == ""
