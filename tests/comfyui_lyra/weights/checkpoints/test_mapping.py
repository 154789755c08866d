import errno
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.weights.checkpoints import mapping
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state
from safetensors.torch import save_file

FORMS = {
    "zip": torch.save,
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, path: save_file(state, path),
}
PROGRAM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for file in sys.argv[2:]:
    state = read_state(file)
    print(all(bool((value == int(name)).all()) for name, value in state.items()), len(state))
    del state
"""


def test_hundreds_of_large_tensors_take_few_descriptors(tmp_path):
    pytest.importorskip("resource")
    files = [tmp_path / f"{form}.pt" for form in FORMS]
    for write, file in zip(FORMS.values(), files, strict=True):
        write({str(i): torch.full((16384,), float(i)) for i in range(300)}, file)
    (tmp_path / "lyra_pack").symlink_to(Path(mapping.__file__).parents[3])
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), *map(str, files)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True 300"] * len(FORMS), done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_is_its_own_whatever_the_windows(tmp_path, monkeypatch, form):
    """Inside a window, across two and larger than one; what is written stays with its tensor and its read."""
    monkeypatch.setattr(mapping, "WINDOW", 2**18)
    sizes = (20_000, 30_000, 50_000, 10, 200_000, 17_000, 0)
    state = {str(i): torch.randn(size) for i, size in enumerate(sizes)}
    FORMS[form](state, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    one, two = read_state(tmp_path / "model.pt"), read_state(tmp_path / "model.pt")
    for name in state:
        assert one[name].untyped_storage().nbytes() == state[name].nbytes
        assert torch.equal(one[name], state[name])
        one[name].fill_(7)
    assert all(torch.equal(two[name], state[name]) for name in state)
    assert all(bool((value == 7).all()) for value in one.values())
    assert (tmp_path / "model.pt").read_bytes() == before


@pytest.mark.parametrize("form", FORMS)
def test_no_descriptors_is_no_damage(tmp_path, monkeypatch, form):
    FORMS[form]({"a": torch.ones(20_000)}, tmp_path / "model.pt")

    def none_left(*_, access, **__):
        if access == mmap.ACCESS_COPY:
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(*_, access=access, **__)

    whole = mmap.mmap
    monkeypatch.setattr(mapping.mmap, "mmap", none_left)
    with pytest.raises(OSError, match="Too many open files") as caught:
        read_state(tmp_path / "model.pt")
    assert caught.value.errno == errno.EMFILE
