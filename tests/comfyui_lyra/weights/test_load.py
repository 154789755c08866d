import pytest
import torch
from lyra_pack.comfyui_lyra.configs import ReconConfig, TeacherConfig
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_about, read_state
from lyra_pack.comfyui_lyra.weights.load import fingerprint, load_weights, rename, save_weights, stored_config
from safetensors.torch import save_file
from torch import nn

RULES = ((r"^net\.", ""), (r"^lin(\d)\.", r"\1."), (r"_extra$", None))


def state() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "net.lin0.weight": torch.randn(3, 2, generator=g),
        "net.lin0.bias": torch.randn(3, generator=g),
        "net.lin0.bias_extra": torch.zeros(1),
    }


def meta_model() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(2, 3))


def test_rules_rename_in_order_and_none_drops():
    assert set(rename(state(), RULES)) == {"0.weight", "0.bias"}
    with pytest.raises(ValueError, match="two keys of the checkpoint are named 'x'"):
        rename({"a": torch.zeros(1), "b": torch.zeros(1)}, ((r"[ab]", "x"),))


def test_a_meta_model_takes_the_tensors_and_their_precision():
    tensors = {name: tensor.bfloat16() for name, tensor in state().items()}
    model = load_weights(meta_model(), tensors, RULES, "file")
    assert model[0].weight.dtype == torch.bfloat16
    assert not model.training
    assert torch.equal(model[0].bias, tensors["net.lin0.bias"])


def test_missing_unexpected_and_misshapen_keys_are_refused():
    short = {name: tensor for name, tensor in state().items() if name != "net.lin0.bias"}
    message = r"x.pt does not fit Sequential: 1 missing \(first: \['0.bias'\]\), 1 unexpected \(first: \['more'\]\)"
    with pytest.raises(ValueError, match=message):
        load_weights(meta_model(), short | {"more": torch.zeros(1)}, RULES, "x.pt")
    with pytest.raises(ValueError, match=r"0.bias is \(4,\), expected \(3,\); the file belongs to a model of another"):
        load_weights(meta_model(), state() | {"net.lin0.bias": torch.zeros(4)}, RULES, "x.pt")


def test_large_tensors_are_digested_beside_each_other_and_keep_their_order():
    with torch.inference_mode():  # as a host makes them, and threads are in no such mode
        a, b = torch.zeros(2**18), torch.ones(2**18)
    state = {"a": a, "b": b, "c": torch.ones(3)}
    assert fingerprint(state) == fingerprint({"c": torch.ones(3), "b": b.clone(), "a": a})
    assert fingerprint(state) != fingerprint(state | {"a": b, "b": a})
    last = a.clone()
    last[-1] = 1e-9
    assert fingerprint(state | {"a": last}) != fingerprint(state)


def test_a_fingerprint_notices_name_value_shape_and_precision():
    base = {"a": torch.arange(4.0)}
    others = ({"b": torch.arange(4.0)}, {"a": torch.arange(4.0) + 1e-6}, {"a": torch.arange(4.0).view(2, 2)},
              {"a": torch.arange(4.0).bfloat16()})  # fmt: skip
    prints = {fingerprint(state) for state in (base, *others)}
    assert len(prints) == 5
    assert fingerprint({"a": torch.arange(4.0)}) == fingerprint(base)


def test_our_files_describe_themselves(tmp_path):
    path, config = tmp_path / "mini.safetensors", TeacherConfig(family="mini", trained_size=(96, 160), fps=12.5)
    tensor = torch.arange(6.0).view(2, 3)
    save_weights(path, {"a": tensor.T, "b": tensor}, config, "Apache-2.0")  # shared memory, not contiguous
    assert fingerprint(read_state(path)) == fingerprint({"a": tensor.T, "b": tensor})
    assert stored_config(path, TeacherConfig) == config
    assert {name: read_about(path)[name] for name in ("family", "licence")} == {
        "family": "mini",
        "licence": "Apache-2.0",
    }
    with pytest.raises(
        ValueError, match="mini.safetensors describes no ReconConfig .*another kind of model, or of a newer"
    ):
        stored_config(path, ReconConfig)
    for damaged in ("[1]", "no JSON"):
        save_file({"a": tensor}, path, {"config": damaged})
        with pytest.raises(ValueError, match="describes no TeacherConfig"):
            stored_config(path, TeacherConfig)


def test_files_of_others_say_nothing(tmp_path):
    save_file(state(), tmp_path / "bare.safetensors")
    torch.save(state(), tmp_path / "model.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"half")
    for name in ("bare.safetensors", "model.pt", "broken.safetensors", "none.safetensors"):
        assert read_about(tmp_path / name) == {} and stored_config(tmp_path / name, TeacherConfig) is None
