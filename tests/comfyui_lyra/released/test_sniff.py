import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.released.sniff import description, said, sniff
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_content
from safetensors.torch import save, save_file
from torch import nn


def saved(content: object, **given) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **given)
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


STATE = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
LEGACY = {"_use_new_zipfile_serialization": False}
FORMS = {  # bytes -> kind, words of the sentence
    "torch zip": (lambda: saved(STATE), "is a torch file with nothing"),
    "torch legacy": (lambda: saved(STATE, **LEGACY), "older torch file"),
    "torchscript": (scripted, "TorchScript archive"),
    "safetensors": (lambda: save(STATE), "is a safetensors file"),
    "gguf": (lambda: b"GGUF\x03\0\0\0" + bytes(50), "this pack reads none; take the model as safetensors"),
    "lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "html": (lambda: b"\n<!DOCTYPE html><html>Log in</html>", "a web page, not the file"),
    "empty": (lambda: b"", "never began; fetch it again"),
    "zeros": (lambda: bytes(99), "did not fill; fetch it again"),
    "ply": (lambda: b"ply\nformat ascii 1.0\nend_header\n", "a PLY file"),
    "zip": (lambda: zipped("model.pt"), "unpack it and choose the file inside"),
    "npz": (lambda: zipped("depth.npy"), "numpy arrays"),
    "statistics": (lambda: saved((torch.zeros(32), torch.ones(32))), "a pair of 32 and 32 numbers"),
    "latents": (lambda: saved(np.zeros((1, 16, 2, 3, 4), np.float32)), "reference's latents"),
    "index": (lambda: b'{"weight_map": {"a": "x.bin"}}', "1 are missing (first: x.bin)"),
    "cameras": (lambda: b'{"format": "lyra-cameras"}', "camera paths of this pack"),
    "json": (lambda: b'{"_class_name": "CosmosTransformer3DModel"}', "configuration of diffusers' CosmosTransformer3D"),
    "text": (lambda: b"[tool]\nname = 1\n", "a text file"),
    "unknown": (lambda: b"\x01\x02\x03" * 30, "of no kind that this pack knows"),
}
CUT = {  # what a broken download of each form is called
    "torch zip": lambda: saved(STATE)[:-300],
    "torch legacy": lambda: saved(STATE, **LEGACY)[:-10],
    "safetensors": lambda: save(STATE)[:-3],
    "safetensors header": lambda: save(STATE)[:40],
    "index": lambda: b'{"weight_map": {"a": "b',
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ""])
@pytest.mark.parametrize("kind", FORMS)
def test_content_and_not_the_suffix_says_what_a_file_is(tmp_path, kind, suffix):
    file = tmp_path / f"model{suffix}"
    make, words = FORMS[kind]
    file.write_bytes(make())
    facts = sniff(file)
    assert facts.kind == {"index": "sharded"}.get(kind, kind) and words in facts.text
    assert facts.loader == "none" and facts.size in (file.stat().st_size, 0)
    assert "again" not in facts.text or kind in ("empty", "zeros", "index")


@pytest.mark.parametrize("form", CUT)
def test_a_broken_download_is_told_to_be_fetched_again(tmp_path, form):
    (tmp_path / "model.pt").write_bytes(CUT[form]())
    facts = sniff(tmp_path / "model.pt")
    assert facts.kind == "truncated" and facts.text.endswith("fetch it again")


def test_a_checkpoint_is_counted_and_its_levels_named(tmp_path):
    content = {"model": {"state_dict": STATE}, "optimizer": {"lr": 1.0}, "iteration": 3}
    torch.save(content, tmp_path / "model.pt")
    facts = sniff(tmp_path / "model.pt")
    assert facts.wrappers == ("model", "state_dict")
    assert (facts.tensors, facts.parameters, facts.dtypes) == (2, 10, {"float32": 6, "bfloat16": 4})
    assert "inside model > state_dict" in description(facts) and "10 numbers in 2 tensors" in description(facts)


def test_each_model_names_its_loader(mini):
    files = {file.stem: sniff(file) for file in mini.glob("*.safetensors")}
    assert {name: facts.loader for name, facts in files.items()} == {
        "mini_teacher": "teacher", "mini_tokenizer": "tokenizer",
        "mini_recon_static": "recon", "mini_recon_dynamic": "recon",
    }  # fmt: skip
    assert files["mini_teacher"].about["family"] == "small"
    assert "of family 'small'" in description(files["mini_teacher"])
    assert sniff(mini).kind == "folder" and "choose one of them" in sniff(mini).text


def test_another_model_of_the_family_is_told_from_gen3c(tmp_path):
    names = "net.x_embedder.proj.1.weight", "net.blocks.block0.blocks.0.block.attn.to_q.0.weight"
    state = {name: torch.zeros(8, 72) for name in names}
    save_file(state, tmp_path / "cosmos.safetensors")
    facts = sniff(tmp_path / "cosmos.safetensors")
    assert facts.loader == "none" and "takes 17 channels, not the 81 of GEN3C" in facts.text


def test_a_text_encoder_is_known(tmp_path):
    names = "shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "pytorch_model.bin", **LEGACY)
    assert sniff(tmp_path / "pytorch_model.bin").loader == "text encoder"


def test_json_of_endless_brackets_is_no_crash(tmp_path):
    deep = b"[" * 200_000
    forms = {"x.json": b'{"a":' + deep, "x.safetensors": struct.pack("<Q", len(deep) + 1) + b"{" + deep}
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert sniff(tmp_path / name).kind in ("truncated", "damaged")


def test_29_gigabytes_are_described_from_the_header(tmp_path):
    size = 29 * 10**9 // 4 * 4
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (tmp_path / "big.pt").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)  # sparse: no such disk is needed
    facts = sniff(tmp_path / "big.pt")
    assert facts.kind == "safetensors" and facts.parameters == size // 4 and facts.size > 28e9


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        sniff(tmp_path / "none")


def header_of(entries: object, numbers: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def entry(shape: object, end: object = 0) -> dict:
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


ABSURD = {
    "2**62 and nothing": entry([2**62, 0]),
    "2**70 and nothing": entry([2**70, 0]),
    "strides beyond the integers": entry([2**40, 2**40, 0]),
    "many axes": entry([1] * 100, 4),
    "words": entry("ab"),
    "no list": entry(3),
    "an end beyond the integers": entry([1], 2**70) | {"b": {"dtype": "X9", "shape": [1], "data_offsets": [0, 2**70]}},
    "metadata of numbers": {"__metadata__": {"config": 7, "family": "teacher"}} | entry([1], 4),
    "metadata in a list": {"__metadata__": ["config"]} | entry([1], 4),
    "metadata of one word": {"__metadata__": "config"} | entry([1], 4),
}


@pytest.mark.parametrize("case", ABSURD)
def test_an_absurd_header_is_one_sentence(tmp_path, case):
    file = tmp_path / "x.safetensors"
    file.write_bytes(header_of(ABSURD[case], bytes(4)))
    facts = sniff(file)
    assert facts.kind == "damaged" and "a damaged safetensors header" in facts.sentence
    assert "\n" not in description(facts)
    with pytest.raises(ValueError, match="cannot be read: a damaged safetensors header"):
        read_content(file)


def test_a_config_that_is_no_text_says_nothing():
    for config in (7, None, [], "[1]", "nothing"):
        assert said({"family": "teacher", "config": config}) == ["of family 'teacher'"]


@pytest.mark.parametrize("data", [saved({"epoch": 3}), saved({"model": {}}), header_of({})])
def test_a_folder_without_tensors_is_described(tmp_path, data):
    name = "model.safetensors" if data[8:9] == b"{" else "model.pt"
    (tmp_path / name).write_bytes(data)
    assert f"no weights can be read: {name} holds no tensors by name" in description(sniff(tmp_path))


def test_an_entry_without_tensors_is_no_wrapper(tmp_path):
    for other in ({"depth": 3}, {"config": {"depth": [3]}}, {}):
        torch.save(STATE | {"model": other}, tmp_path / "model.pt")
        facts = sniff(tmp_path / "model.pt")
        assert facts.tensors == 2 and facts.wrappers == ()
    torch.save({"model": {"depth": 3}, "state_dict": {"module": STATE}}, tmp_path / "model.pt")
    assert sniff(tmp_path / "model.pt").wrappers == ("state_dict", "module")
