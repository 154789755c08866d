import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.load import is_quantised, load_teacher, read_teacher
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.released.convert import convert_weights
from lyra_pack.comfyui_lyra.released.sniff import sniff
from lyra_pack.comfyui_lyra.tokenizer.model import load_tokenizer
from lyra_pack.comfyui_lyra.weights.checkpoints.writing import stream_safetensors
from lyra_pack.comfyui_lyra.weights.load import fingerprint
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]


def test_a_teacher_becomes_bfloat16_and_says_what_it_is(tmp_path, mini):
    source, out = mini / "mini_teacher.safetensors", tmp_path / "out" / "half.safetensors"
    digest = convert_weights(source, out)
    assert digest == hashlib.sha256(out.read_bytes()).hexdigest()
    found, cast = load_teacher(out), load_teacher(source, dtype=torch.bfloat16)
    assert found.config == cast.config and found.dtype == torch.bfloat16
    assert fingerprint(found.network.state_dict()) == fingerprint(cast.network.state_dict())
    assert sniff(out).loader == "teacher" and sniff(out).dtypes == {"bfloat16": sniff(out).parameters}


def test_a_tokenizer_keeps_its_statistics_in_float32(tmp_path, mini):
    source, out = mini / "mini_tokenizer.safetensors", tmp_path / "half.safetensors"
    convert_weights(source, out)
    found, whole = load_tokenizer(out), load_tokenizer(source)
    assert torch.equal(found.mean, whole.mean) and torch.equal(found.std, whole.std)
    assert found.identity.endswith("-bfloat16") and found.config == whole.config
    assert torch.equal(found.autoencoder.quant_conv.weight, whole.autoencoder.quant_conv.weight.bfloat16())


def test_a_splat_decoder_keeps_its_precision_unless_told(tmp_path, small_recon):
    torch.save({"module": small_recon.half().state_dict()}, tmp_path / "lyra_dynamic.pt")
    config = small_recon.config
    convert_weights(tmp_path / "lyra_dynamic.pt", tmp_path / "a.safetensors", config=config)
    convert_weights(tmp_path / "lyra_dynamic.pt", tmp_path / "b.safetensors", torch.float32, config=config)
    assert load_recon(tmp_path / "a.safetensors").config == config
    assert sniff(tmp_path / "a.safetensors").dtypes.keys() == {"float16"}
    assert sniff(tmp_path / "b.safetensors").dtypes.keys() == {"float32"}
    small_recon.float()


def test_what_is_no_model_of_ours_is_refused_by_name(tmp_path):
    (tmp_path / "page.pt").write_text("<!doctype html>")
    with pytest.raises(ValueError, match="page.pt is a web page, .*; give a teacher, a tokenizer or a splat decoder"):
        convert_weights(tmp_path / "page.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_streamed_files_are_what_safetensors_reads(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor(7), "c": torch.zeros(0, 4).half()}
    digest = stream_safetensors(tmp_path / "x.safetensors", tensors, {"family": "f"}, lambda name: torch.bfloat16)
    found = load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["b"], tensors["b"].bfloat16()) and torch.equal(found["a"], tensors["a"])
    assert (
        found["c"].shape == (0, 4) and digest == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    )


MEASURED = """
import importlib.util, resource, sys
from pathlib import Path
root, source, out = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location("lyra_pack", root / "__init__.py")
sys.modules["lyra_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
import torch
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state
from lyra_pack.comfyui_lyra.weights.checkpoints.writing import stream_safetensors
torch.zeros(1).bfloat16()
stream_safetensors(out.with_name("small"), {"a": torch.zeros(2)}, {})

def own():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

before, most = own(), [0]
stream_safetensors(out, read_state(source), {}, lambda name: torch.bfloat16,
                   lambda *_: most.__setitem__(0, max(most[0], own() - before)))
print(most[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_is_converted_within_a_few_tensors_of_memory(tmp_path):
    state = {f"net.{i}": torch.full((2**21,), float(i)) for i in range(40)}  # 8 MiB each, 320 MiB
    torch.save(state, tmp_path / "big.pt")
    del state
    words = [sys.executable, "-c", MEASURED, str(ROOT), str(tmp_path / "big.pt"), str(tmp_path / "half")]
    kilobytes = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 96 * 1024  # of 320 MiB of tensors, 8 MiB each
    assert torch.equal(load_file(tmp_path / "half")["net.7"], torch.full((2**21,), 7.0).bfloat16())


@pytest.mark.parametrize(("quant", "dtype", "error"), [("fp8", torch.float8_e4m3fn, 0.04), ("int8", torch.int8, 0.02)])
def test_a_teachers_matrices_are_stored_in_8_bits_as_comfyui_takes_them(tmp_path, mini, quant, dtype, error):
    source, out = mini / "mini_teacher.safetensors", tmp_path / "small.safetensors"
    convert_weights(source, out, quant=quant)
    stored = load_file(out)
    matrices = [name for name, tensor in stored.items() if tensor.dtype == dtype]
    assert len(matrices) == 10 * read_teacher(source).config.blocks
    assert not [name for name in matrices if "adaLN" in name or "blocks.block" not in name]
    layer = "blocks.block0.blocks.0.block.attn.to_q.0"
    assert bytes(stored[f"{layer}.comfy_quant"].tolist()) == {
        "fp8": b'{"format": "float8_e4m3fn"}', "int8": b'{"format": "int8_tensorwise"}'
    }[quant]  # fmt: skip
    assert stored[f"{layer}.weight_scale"].shape == () and stored["x_embedder.proj.1.weight"].dtype == torch.bfloat16
    found, whole = load_teacher(out, dtype=torch.float32), load_teacher(source, dtype=torch.float32)
    assert found.config == whole.config
    for name, weight in whole.network.state_dict().items():
        off = (found.network.state_dict()[name] - weight).norm() / weight.norm()
        assert off < (error if weight.ndim == 2 else 4e-3), name
    assert is_quantised(out) and not is_quantised(source)
    assert read_teacher(out).fingerprint == found.fingerprint != whole.fingerprint
    assert out.stat().st_size < 0.7 * source.stat().st_size
    with pytest.raises(ValueError, match="mini_tokenizer.safetensors is a tokenizer; --quant is for teachers"):
        convert_weights(mini / "mini_tokenizer.safetensors", out, quant=quant)
