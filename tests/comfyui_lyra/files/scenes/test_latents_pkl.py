import io
import os
import zipfile

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl


@pytest.fixture
def values():
    return torch.randn(16, 3, 2, 4, generator=torch.Generator().manual_seed(0))


def test_latents_survive_and_the_file_is_the_reference_s_form(tmp_path, values):
    path = tmp_path / "clip.pkl"
    save_latent_pkl(path, values)
    assert torch.equal(load_latent_pkl(path), values)
    stored = torch.load(path, weights_only=False)  # as the reference opens it
    assert isinstance(stored, np.ndarray)
    assert (stored.shape, stored.dtype) == ((1, 16, 3, 2, 4), np.float32)
    assert path.name not in str(zipfile.ZipFile(path).namelist())


@pytest.mark.parametrize("spelling", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_both_spellings_of_numpy_are_read(tmp_path, values, spelling):
    save_latent_pkl(tmp_path / "clip.pkl", values)
    with zipfile.ZipFile(tmp_path / "clip.pkl") as old, zipfile.ZipFile(tmp_path / "new.pkl", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            for other in (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"):
                data = data.replace(other, b"c" + spelling + b"\n")
            assert not name.endswith("data.pkl") or b"c" + spelling + b"\n" in data
            new.writestr(name, data)
    assert torch.equal(load_latent_pkl(tmp_path / "new.pkl"), values)


@pytest.mark.parametrize("kind", [np.float16, np.float64, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("batch", [True, False])
def test_other_float_types_tensors_and_a_missing_batch_axis_are_read(tmp_path, values, kind, batch):
    stored = values.to(kind) if isinstance(kind, torch.dtype) else values.numpy().astype(kind)
    torch.save(stored[None] if batch else stored, tmp_path / "clip.pkl")
    found = load_latent_pkl(tmp_path / "clip.pkl")
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.as_tensor(stored).float())


class Malicious:
    """Leaves a folder behind when opened the usual way, by a call that every Python pickles under the same name."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.makedirs, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"z": [bad]}])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, wrap, zipped):
    path, trace = tmp_path / "clip.pkl", tmp_path / "trace"
    torch.save(wrap(Malicious(trace)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"clip.pkl: not a latent file of numbers only, .* calls os.makedirs$"):
        load_latent_pkl(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it does run for those who unpickle
    assert trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'true'\ntR.",  # a call
        b"cnumpy\nload\n(S'other.npy'\ntR.",  # another function of a module we trust
        b"cnumpy\nndarray\n(K\x02\x85cnumpy\ndtype\n(X\x01\x00\x00\x00OtRtR.",  # an array of objects
    ],
)
def test_crafted_programs_are_refused(tmp_path, program):
    archive = io.BytesIO()
    torch.save(torch.zeros(1), archive)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "clip.pkl", "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(ValueError, match="refused"):
        load_latent_pkl(tmp_path / "clip.pkl")


def test_what_the_host_allows_stays_as_it_was(tmp_path, values):
    save_latent_pkl(tmp_path / "clip.pkl", values)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([np.dtype]):
        load_latent_pkl(tmp_path / "clip.pkl")
        assert set(torch.serialization.get_safe_globals()) == before | {np.dtype}
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (torch.zeros(1, 15, 3, 2, 4), r"expected \[16 T h w\], got \(15, 3, 2, 4\)"),
        (torch.zeros(2, 16, 3, 2, 4), r"got \(2, 16, 3, 2, 4\)"),
        (torch.zeros(16, 3, 2), r"got \(16, 3, 2\)"),
        ({"z": torch.zeros(1)}, r"expected an array \[1 16 T h w\], got a dict"),
        (b"", "refused: it is damaged, or not written by torch.save"),
        (b"nonsense", "refused: it is damaged, or not written by torch.save"),
    ],
)
def test_other_contents_are_one_sentence(tmp_path, stored, message):
    path = tmp_path / "clip.pkl"
    path.write_bytes(stored) if isinstance(stored, bytes) else torch.save(stored, path)
    with pytest.raises(ValueError, match=f"clip.pkl: .*{message}") as raised:
        load_latent_pkl(path)
    assert "\n" not in str(raised.value)


def test_missing_files_and_wrong_shapes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="clip.pkl: no such file"):
        load_latent_pkl(tmp_path / "clip.pkl")
    with pytest.raises(ValueError, match=r"expected \[16 T h w\], got \(1, 16, 3, 2, 4\)"):
        save_latent_pkl(tmp_path / "clip.pkl", torch.zeros(1, 16, 3, 2, 4))


class Huge:
    """A few bytes that ask for 344 GB."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: Huge((np.ndarray, ((16, 4, 40_000, 33_600), np.dtype("float32")))), id="called"),
        pytest.param(lambda: torch.zeros(1, dtype=torch.float16).expand(16, 4, 40_000, 33_600), id="one value"),
    ],
)
def test_a_shape_that_would_fill_the_memory_takes_none(tmp_path, content, zipped):
    torch.save(content(), tmp_path / "clip.pkl", _use_new_zipfile_serialization=zipped)
    assert (tmp_path / "clip.pkl").stat().st_size < 3000
    with pytest.raises(ValueError, match=r"clip.pkl: (claims .*made to fill the memory|not a latent file .* refused)"):
        load_latent_pkl(tmp_path / "clip.pkl")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, values):
    save_latent_pkl(tmp_path / "clip.pkl", values)
    with zipfile.ZipFile(tmp_path / "clip.pkl", "a", zipfile.ZIP_DEFLATED) as archive, archive.open("9", "w") as member:
        for _ in range(17):
            member.write(bytes(1 << 24))
    with pytest.raises(ValueError, match="clip.pkl: the archive claims"):
        load_latent_pkl(tmp_path / "clip.pkl")
