"""Lyra's decoders as DeepSpeed saves them: weights below "module", its own objects beside them."""

from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.released.sniff import sniff
from lyra_pack.comfyui_lyra.weights.load import fingerprint


class LossScaler:
    """DeepSpeed's has a state like this."""

    def __init__(self):
        self.cur_scale, self.dynamic = 65536.0, True


@pytest.mark.parametrize("given", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_deepspeed_state_loads_whatever_lies_beside_the_weights(tmp_path, tiny, tiny_model, prefix, given):
    state = {prefix + name: weight for name, weight in tiny_model.state_dict().items()}
    content = {
        "module": state, "buffer_names": [], "optimizer": {"loss_scaler": LossScaler()}, "lr_scheduler": LossScaler(),
        "param_shapes": [{"a": torch.Size([1])}], "ds_config": {"train_batch_size": 8}, "ds_version": "0.15",
        "csr_tensor_module_names": set(), "dp_world_size": 8, "global_steps": 10,
    }  # fmt: skip
    torch.save(content, tmp_path / "lyra_static.pt", **given)
    found = load_recon(tmp_path / "lyra_static.pt", replace(tiny))
    assert fingerprint(found.state_dict()) == fingerprint(tiny_model.state_dict())
    facts = sniff(tmp_path / "lyra_static.pt")
    assert (facts.loader, facts.wrappers) == ("recon", ("module",))
