"""Packed goldens: what the packer writes comes back bit by bit, and seeds give what torch draws."""

import importlib.util
from pathlib import Path

import packed
import pytest
import torch
from safetensors.torch import save_file

DEV = Path(__file__).resolve().parents[1] / "dev" / "pack_goldens.py"


@pytest.fixture(scope="module")
def packer():
    spec = importlib.util.spec_from_file_location("pack_goldens", DEV)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    weights = torch.randn(37, 11, generator=random) / 11**0.5
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -1e-40, 1.0]).repeat(9)
    return {
        "weights": weights,
        "picture": torch.rand(3, 20, 30, generator=random) * 2 - 1,
        "rounded": weights * (1 + 2**-22),
        "odd": odd,
        "halves": weights.bfloat16(),
        "counts": torch.arange(70).reshape(7, 10),
        "one": torch.tensor(3.5),
        "mask": odd == 0,
    }


@pytest.fixture
def written(packer, tensors, tmp_path) -> Path:
    save_file(tensors, tmp_path / "x.safetensors")
    packer.pack_file(tmp_path / "x.safetensors", packer.Streams([6, 7], 5000))
    return tmp_path / "x.safetensors.packed"


def test_packed_tensors_come_back_bit_by_bit(written, tensors, packer):
    found = packed.unpack(written)
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        assert packer.bits(found[key]) == packer.bits(tensor), key
    assert not written.with_suffix("").exists()


def test_seeded_numbers_take_little_room(written):
    """3.8 bytes an element at best without their seed; 9 kB of them lie here."""
    assert written.stat().st_size < 2500


def test_a_file_that_does_not_come_back_is_kept(packer, tensors, tmp_path, monkeypatch):
    save_file(tensors, tmp_path / "x.safetensors")
    monkeypatch.setattr(packer.packed, "unpack", lambda path: tensors | {"weights": tensors["rounded"]})
    with pytest.raises(ValueError, match="weights does not come back bit by bit"):
        packer.pack_file(tmp_path / "x.safetensors", packer.Streams([], 0))
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("count", [16, 100, 403])
def test_seeds_give_what_torch_draws(count):
    random = torch.Generator().manual_seed(1234567)
    assert torch.equal(torch.from_numpy(packed.uniform(1234567, 0, 50)).float(), torch.rand(50, generator=random))
    drawn = torch.from_numpy(packed.normal(1234567, 50, count)).float()
    torch.testing.assert_close(drawn, torch.randn(count, generator=random), atol=1e-6, rtol=1e-5)
