"""Each form in which a teacher goes about: made from one tiny teacher, loaded, and equal to it."""

import argparse
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher
from lyra_pack.comfyui_lyra.released.sniff import sniff
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state
from safetensors.torch import save_file

LEGACY = {"_use_new_zipfile_serialization": False}
E4M3 = torch.float8_e4m3fn


class Maker:
    """One tiny teacher's weights, and the folder where a form is written."""

    def __init__(self, folder: Path, ours: dict, nvidia, fastvideo):
        self.folder, self.ours = folder, {name: value.clone() for name, value in ours.items()}
        self.net = {name.removeprefix("net."): value for name, value in nvidia(self.ours).items()}
        self.fastvideo = fastvideo(self.ours)

    def torch(self, content: object, name: str = "model.pt", **given) -> Path:
        torch.save(content, self.folder / name, **given)
        return self.folder / name

    def safetensors(self, state: dict, name: str = "model.safetensors", about: dict | None = None) -> Path:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in state.items()}, self.folder / name, about)
        return self.folder / name

    def prefixed(self, prefix: str) -> dict:
        return {prefix + name: value for name, value in self.net.items()}

    def sharded(self, state: dict, folder: str = "", stem: str = "model", suffix: str = ".safetensors") -> Path:
        """Two shards and their index."""
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        parts = {f"{stem}-0000{1 + i}-of-00002{suffix}": sorted(state)[i::2] for i in range(2)}
        for part, keys in parts.items():
            content = {key: state[key] for key in keys}
            if suffix == ".safetensors":
                self.safetensors(content, str(Path(folder, part)))
            else:
                self.torch(content, str(Path(folder, part)))
        index = self.folder / folder / f"{stem}{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": {key: part for part, keys in parts.items() for key in keys}}))
        return index


def with_a_zip_behind(m: Maker) -> Path:
    """What zipfile takes for an archive, though its first bytes are a pickle's."""
    path, behind = m.torch(m.prefixed("net."), **LEGACY), io.BytesIO()
    with zipfile.ZipFile(behind, "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
    path.write_bytes(path.read_bytes() + behind.getvalue())
    assert zipfile.is_zipfile(path)
    return path


def trained(m: Maker) -> Path:
    """A training's checkpoint with everything that may lie beside and between the weights."""
    state = m.prefixed("net.") | {
        "net.pos_embedder.seq": torch.arange(4.0), "net.accum_image_sample_counter": torch.tensor(3),
        "net.accum_iteration": torch.tensor(1), "logvar.0.freqs": torch.zeros(2),
        "net.blocks.block0.blocks.0.block.attn.attn_op._extra_state": io.BytesIO(b"fp8"),
        "ema.net-x": torch.zeros(1),
    }  # fmt: skip
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    ema = {name: torch.zeros_like(value) for name, value in state.items() if isinstance(value, torch.Tensor)}
    return m.torch({
        "ema": ema, "model": state, "optimizer": optimizer, "scheduler": argparse.Namespace(step=1),
        "grad_scaler": {}, "iteration": 5,
    })  # fmt: skip


WRAPPERS = (("model",), ("module",), ("state_dict",), ("model_state_dict",), ("ema",), ("model", "state_dict"))
PREFIXES = (
    "", "net.", "module.", "model.", "_orig_mod.", "model.diffusion_model.", "model.net.", "module.net.",
    "module._orig_mod.net.", "_orig_mod.module.model.net.",
)  # fmt: skip


def wrapped(content: object, levels: tuple[str, ...]) -> object:
    for level in reversed(levels):
        content = {level: content, "iteration": 3}
    return content


FORMS = {
    "torch zip": lambda m: m.torch(m.prefixed("net.")),
    "torch legacy": lambda m: m.torch(m.prefixed("net."), **LEGACY),
    "torch legacy that ends in a zip": with_a_zip_behind,
    "safetensors": lambda m: m.safetensors(m.prefixed("net.")),
    "safetensors named .pt": lambda m: m.safetensors(m.prefixed("net."), "model.pt"),
    "safetensors named .sft": lambda m: m.safetensors(m.prefixed("net."), "model.sft"),
    "torch named .safetensors": lambda m: m.torch(m.prefixed("net."), "model.safetensors"),
    "training checkpoint": trained,
    "diffusers' names": lambda m: m.safetensors(m.ours),
    "FastVideo's names": lambda m: m.safetensors(m.fastvideo),
    "FastVideo's folder": lambda m: m.safetensors(m.fastvideo, "transformer/model.safetensors").parent.parent,
    "compiled parts": lambda m: m.torch({f"net.{n}".replace("blocks.0.", "blocks.0._orig_mod."): v
                                         for n, v in m.net.items()}),
    "inside a checkpoint of several models": lambda m: m.safetensors(
        m.prefixed("model.diffusion_model.") | {"vae.x": torch.zeros(1), "text_encoders.t5.y": torch.zeros(1)}),
    "shards by their index": lambda m: m.sharded(m.prefixed("net.")),
    "shards by one of them": lambda m: m.sharded(m.prefixed("net.")).with_name("model-00002-of-00002.safetensors"),
    "shards by their folder": lambda m: m.sharded(m.prefixed("net.")).parent,
    "shards without an index": lambda m: (m.sharded(m.prefixed("net.")).unlink(),
                                          m.folder / "model-00001-of-00002.safetensors")[1],
    "torch shards": lambda m: m.sharded(m.prefixed("net."), stem="pytorch_model", suffix=".bin"),
    "diffusers folder of shards": lambda m: m.sharded(
        m.ours, "transformer", "diffusion_pytorch_model").parent.parent,
    **{f"in {' > '.join(levels)}": lambda m, levels=levels: m.torch(wrapped(m.prefixed("net."), levels))
       for levels in WRAPPERS},
    **{f"prefix {prefix!r}": lambda m, prefix=prefix: m.torch(m.prefixed(prefix)) for prefix in PREFIXES},
}  # fmt: skip


@pytest.fixture
def maker(tmp_path, small_teacher, nvidia, fastvideo) -> Maker:
    return Maker(tmp_path, small_teacher.network.state_dict(), nvidia, fastvideo)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_teacher(maker, small_teacher, form):
    path = FORMS[form](maker)
    found = load_teacher(path, small_teacher.config).network.state_dict()
    assert found.keys() == maker.ours.keys()
    assert all(torch.equal(found[name], value) for name, value in maker.ours.items())
    facts = sniff(path)
    assert facts.loader == "teacher" and facts.parameters >= sum(value.numel() for value in maker.ours.values())


def scaled(maker: Maker, note: str) -> tuple[dict, dict, dict]:
    """A state in fp8 with scales as ``note`` says, its metadata, and what it stands for."""
    state, about, meant, layers = {}, {}, {}, {}
    for name, value in maker.net.items():
        key, layer = f"net.{name}", f"net.{name}".removesuffix(".weight")
        if value.ndim != 2 or layer == key:
            state[key] = meant[name] = value
            continue
        scale = value.abs().max() / 448
        state[key] = (value / scale).to(E4M3)
        meant[name] = state[key].float() * scale
        if note == "scale_weight":
            state |= {f"{layer}.scale_weight": scale, f"{layer}.scale_input": torch.tensor(1.0)}
            state["scaled_fp8"] = torch.zeros(2, dtype=E4M3)
        else:
            state |= {f"{layer}.weight_scale": scale, f"{layer}.input_scale": torch.tensor(1.0)}
            layers[layer] = {"format": "float8_e4m3fn"}
        if note == "comfy_quant":
            words = json.dumps(layers[layer]).encode()
            state[f"{layer}.comfy_quant"] = torch.tensor(list(words), dtype=torch.uint8)
        if note == "bytes":
            state[key] = state[key].view(torch.uint8)
    if note in ("metadata", "bytes"):
        about["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    return state, about, meant


@pytest.mark.parametrize("note", ["scale_weight", "comfy_quant", "metadata", "bytes", "none"])
def test_scaled_fp8_becomes_what_it_stands_for(maker, small_teacher, nvidia, note):
    state, about, meant = scaled(maker, note)
    path = maker.safetensors(state, about=about)
    found = load_teacher(path, small_teacher.config, torch.float32)
    names = dict(zip(nvidia(maker.ours), maker.ours, strict=True))
    loaded = found.network.state_dict()
    assert all(torch.equal(loaded[names[f"net.{name}"]], value) for name, value in meant.items())
    facts = sniff(path)
    assert facts.quantised and facts.loader == "teacher"
    assert ("uint8" if note == "bytes" else "float8_e4m3fn") in facts.dtypes
    again = load_teacher(path, small_teacher.config)  # nobody computes in 8 bits here
    assert again.network.proj_out.weight.dtype == torch.bfloat16 and again.fingerprint == found.fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_precision_loads(maker, small_teacher, dtype):
    path = maker.safetensors({name: value.to(dtype) for name, value in maker.prefixed("net.").items()})
    found = load_teacher(path, small_teacher.config).network.state_dict()
    kept = torch.bfloat16 if dtype.itemsize == 1 else dtype
    assert all(torch.equal(found[name], value.to(dtype).to(kept)) for name, value in maker.ours.items())


def test_scales_of_each_row_and_whole_numbers(tmp_path):
    weight, scale = torch.randint(-127, 128, (3, 4), dtype=torch.int8), torch.rand(3, 1) + 0.5
    note = torch.tensor(list(b'{"format": "int8_tensorwise"}'), dtype=torch.uint8)
    save_file({"a.weight": weight, "a.weight_scale": scale, "a.comfy_quant": note}, tmp_path / "x.safetensors")
    (found,) = read_state(tmp_path / "x.safetensors").values()
    assert torch.equal(found.real(torch.float32), weight.float() * scale)


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ('{"format": "nvfp4"}', "quantised as nvfp4, which this pack does not read"),
        ('{"format": "int8_tensorwise", "convrot": true}', "quantised as int8_tensorwise with convrot"),
        ("no JSON", "a note on quantisation that cannot be read"),
        ('{"format": "float8_e4m3fn"}', "has 5 numbers for a weight"),
    ],
)
def test_other_ways_to_quantise_are_named(tmp_path, note, words):
    state = {
        "a.weight": torch.zeros(3, 4, dtype=torch.uint8), "a.weight_scale": torch.ones(5),
        "a.comfy_quant": torch.tensor(list(note.encode()), dtype=torch.uint8),
    }  # fmt: skip
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=words):
        read_state(tmp_path / "x.safetensors")
    assert sniff(tmp_path / "x.safetensors").quantised


NAMED = {
    "GGUF": (b"GGUF\3\0\0\0", "a GGUF file"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
    "HTML page": (b"<html><body>403</body></html>", "a web page"),
    "server's answer": (b'{"error": "Invalid username or password."}', "a server's answer"),
    "empty": (b"", "fetch it again"),
    "zeros": (bytes(1000), "fetch it again"),
    "zip of a file": (None, "unpack it"),
    "pickle": (b"\x80\x04}.", "a pickle that torch.save did not write"),
}


@pytest.mark.parametrize("form", NAMED)
def test_what_is_no_checkpoint_is_named_with_the_remedy(tmp_path, form):
    content, words = NAMED[form]
    if content is None:
        with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
            archive.writestr("model.bin", b"x")
    else:
        (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=f"model.pt is .*{words}") as caught:
        load_teacher(tmp_path / "model.pt")
    assert ("fetch it again" in str(caught.value)) == (form in ("empty", "zeros"))


@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_only_a_broken_download_is_to_be_fetched_again(maker, form, share):
    path = FORMS[form](maker)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"broke off.*fetch it again"):
        load_teacher(path)
    assert sniff(path).kind == "truncated"


def test_missing_shards_are_named(maker):
    index = maker.sharded(maker.net)
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    for chosen in (index, index.with_name("model-00001-of-00002.safetensors"), index.parent):
        with pytest.raises(FileNotFoundError, match=r"1 are missing \(first: model-00002-of-00002.safetensors\)"):
            read_state(chosen)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    for name in ("../x.safetensors", "/etc/passwd", "model.index.json"):
        (tmp_path / "model.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match="names no files of its own folder|names itself"):
            read_state(tmp_path / "model.index.json")


def test_the_other_models_are_not_taken_for_a_teacher(tmp_path, small_recon):
    torch.save({"module": small_recon.state_dict()}, tmp_path / "lyra_static.pt")
    with pytest.raises(ValueError, match="lyra_static.pt does not fit GEN3C: .*'lyra info' says what the file is"):
        load_teacher(tmp_path / "lyra_static.pt")
    assert sniff(tmp_path / "lyra_static.pt").loader == "recon"


def test_tensors_are_windows_into_the_file_and_never_write_to_it(tmp_path):
    for name, given in (("zip.pt", {}), ("x.safetensors", None)):
        weight = {"a": torch.zeros(1000)}
        torch.save(weight, tmp_path / name) if given is not None else save_file(weight, tmp_path / name)
        before = (tmp_path / name).read_bytes()
        read_state(tmp_path / name)["a"].add_(1)
        assert (tmp_path / name).read_bytes() == before and read_state(tmp_path / name)["a"].sum() == 0


@pytest.mark.parametrize("odd", range(8))
def test_numbers_at_an_odd_address_are_read_as_well(tmp_path, odd):
    """Headers of older writers end anywhere, and so do the pickles of legacy files."""
    meant = {"a": torch.randn(40_000), "b": torch.randn(3).half(), "c": torch.randn(50_000).bfloat16()}
    save_file(meant, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip() + b" " * odd
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    found = read_state(tmp_path / "x.safetensors")
    for name, value in meant.items():
        assert torch.equal(found[name], value) and torch.equal(found[name].double(), value.double())
        assert torch.equal(found[name].bfloat16() * 2, value.bfloat16() * 2)
