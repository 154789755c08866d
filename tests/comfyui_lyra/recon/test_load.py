import hashlib

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import RECON_PRESETS
from lyra_pack.comfyui_lyra.recon.load import load_recon, read_config, save_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.weights.load import fingerprint


def test_a_saved_decoder_loads_with_its_configuration(tmp_path, tiny, tiny_model):
    digest = save_recon(tiny_model.half(), tmp_path / "mine.safetensors")
    assert digest == hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    found = load_recon(tmp_path / "mine.safetensors")
    assert found.config == tiny
    assert fingerprint(found.state_dict()) == fingerprint(tiny_model.state_dict())
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.safetensors"]  # nothing temporary stays


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_torch_file_loads_wrapped_or_bare(tmp_path, tiny, tiny_model, wrapped):
    state = tiny_model.state_dict()
    torch.save({"module": state} if wrapped else state, tmp_path / "any.pt")
    assert fingerprint(load_recon(tmp_path / "any.pt", tiny).state_dict()) == fingerprint(state)


def test_released_files_are_told_apart_by_name(tmp_path):
    assert {name: read_config(tmp_path / f"{name}.pt") for name in RECON_PRESETS} == dict(RECON_PRESETS)
    assert RECON_PRESETS["lyra_dynamic"].dynamic and not RECON_PRESETS["lyra_static"].dynamic
    with pytest.raises(ValueError, match="my.pt does not say which .* lyra_static, lyra_dynamic"):
        read_config(tmp_path / "my.pt")


def test_weights_of_another_size_are_refused(tmp_path, tiny_model):
    torch.save(tiny_model.state_dict(), tmp_path / "lyra_static.pt")
    with pytest.raises(ValueError, match=r"lyra_static.pt does not fit Recon: \d+ missing \(first: \['enc_blocks"):
        load_recon(tmp_path / "lyra_static.pt")


def test_the_released_size_has_the_released_number_of_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in Recon(RECON_PRESETS["lyra_static"]).parameters()) == 32_753_996
