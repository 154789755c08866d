import json
from dataclasses import replace

import pytest
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.scale.scenes import ScenesJob
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer


@pytest.fixture(scope="session")
def models(tmp_path_factory, small_teacher, small_tokenizer):
    """Files of a small teacher and tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    save_teacher(small_teacher, folder / "teacher.safetensors")
    save_tokenizer(small_tokenizer, folder / "tokenizer.safetensors")
    return folder


@pytest.fixture
def job(tmp_path, models) -> ScenesJob:
    """Three scenes, in two steps of the sampler each."""
    return ScenesJob(
        out=str(tmp_path / "out"), seeds=range(10_000, 10_003), steps=2,
        teacher=str(models / "teacher.safetensors"), tokenizer=str(models / "tokenizer.safetensors"),
    )  # fmt: skip


def plain(name: str, data: bytes) -> object:
    """What a file holds; safetensors writes the names of its header in any order."""
    if not name.endswith(".safetensors"):
        return data
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def contents_of(root) -> dict[str, object]:
    """Every file below a folder by its name there."""
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    return {(name := file.relative_to(root).as_posix()): plain(name, file.read_bytes()) for file in files}


@pytest.fixture(scope="session")
def contents():
    return contents_of


@pytest.fixture(scope="session")
def as_plain():
    return plain


@pytest.fixture
def with_out():
    return lambda job, out: replace(job, out=str(out))
