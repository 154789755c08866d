import copy
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.hooks import group_offloading
from lyra_pack.comfyui_lyra.configs import TeacherConfig
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher, save_teacher
from lyra_pack.comfyui_lyra.weights.load import Fingerprint, fingerprint

ROOT = Path(__file__).resolve().parents[3]


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


def test_a_fingerprint_is_computed_once_and_again_when_the_file_changes(tmp_path, small_teacher, monkeypatch):
    file = tmp_path / "teacher.safetensors"
    save_teacher(small_teacher, file)
    first = load_teacher(file, dtype=torch.bfloat16)
    shown = []
    honest = Fingerprint.add
    monkeypatch.setattr(Fingerprint, "add", lambda self, *tensor: (shown.append(tensor[0]), honest(self, *tensor)))
    assert load_teacher(file).fingerprint == first.fingerprint and not shown
    os.utime(file, ns=(0, 0))
    assert load_teacher(file).fingerprint == first.fingerprint and shown
    other = copy.deepcopy(small_teacher.network)
    other.proj_out.weight.data += 1
    save_teacher(replace(small_teacher, network=other), file)
    assert load_teacher(file).fingerprint != first.fingerprint
    monkeypatch.setenv("LYRA_CACHE", str(file / "below"))  # nowhere to remember anything
    assert load_teacher(file).fingerprint == fingerprint(other.state_dict())


MEASURED = """
import importlib.util, sys
sys.modules["torchvision"] = None
from dataclasses import replace
from pathlib import Path
root, file = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location("lyra_pack", root / "__init__.py")
sys.modules["lyra_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
import torch
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS
from lyra_pack.comfyui_lyra.gen3c.dit import build
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher

def own():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

config = replace(TEACHER_PRESETS["mini"], heads=16, head_dim=64, blocks=4)
state = {name: torch.zeros(weight.shape) for name, weight in build(config).state_dict().items()}
size = sum(weight.numel() * 4 for weight in state.values())
torch.save(state, file)
del state
before = own()
teacher = load_teacher(file, config, torch.bfloat16)
print(size, own() - before, [name for name in sys.modules if name.startswith("torchvision.")])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_float32_file_takes_the_memory_of_its_bfloat16_only_and_no_torchvision(tmp_path):
    words = [sys.executable, "-c", MEASURED, str(ROOT), str(tmp_path / "model.pt")]
    done = subprocess.run(words, capture_output=True, text=True)
    size, taken, imported = done.stdout.split(maxsplit=2) if done.stdout else pytest.fail(done.stderr)
    assert imported.strip() == "[]"
    size, taken = int(size), int(taken)
    assert size > 150e6 and taken < 0.75 * size  # half of it, and torch's own


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


class Copies:
    """A card's streams where there is no card: what is copied is there at once."""

    def __init__(self, device=None): ...

    def synchronize(self): ...

    def stream(self, stream):
        return nullcontext()

    def current_stream(self):
        return self


@pytest.fixture
def streams_on_cpu(monkeypatch):
    """``Teacher.streamed`` to a card, with diffusers' hooks of one, whose device is the CPU after all."""

    def apply(network, *, onload_device, offload_device, use_stream, record_stream, **given):
        assert onload_device.type == "cuda" and use_stream and record_stream
        config = group_offloading.GroupOffloadingConfig(
            onload_device=offload_device, offload_device=offload_device, non_blocking=False, low_cpu_mem_usage=False,
            stream=Copies(), record_stream=True, **given,
        )  # fmt: skip
        group_offloading._apply_group_offloading(network, config)

    monkeypatch.setattr("diffusers.hooks.apply_group_offloading", apply)
    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Copies)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)


@torch.inference_mode()
def test_the_step_cache_of_the_first_clip_skips_blocks_that_a_card_streams(small_teacher, streams_on_cpu):
    network = copy.deepcopy(small_teacher.network)
    streamed = replace(small_teacher, network=network).streamed(torch.device("cuda"))
    assert (streamed.device.type, network.proj_out.weight.device.type) == ("cuda", "cpu")
    runs = []
    network.transformer_blocks[-1].ff.register_forward_hook(lambda *_: runs.append(1))
    x, c_noise, text = torch.ones(1, 81, 2, 4, 6), torch.zeros(1), torch.ones(1, 5, 12)
    for _ in range(2):  # clips
        with network.step_cache(1e9):
            assert torch.equal(network(x, c_noise, text), small_teacher.network(x, c_noise, text))
            network(x, c_noise, text)
    assert len(runs) == 2
    assert torch.equal(network(x, c_noise, text), small_teacher.network(x, c_noise, text))
