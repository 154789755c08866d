import io
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from lyra_pack.comfyui_lyra.files.arrays import array_names, read_arrays, read_npy


def everything(names):
    return names


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_survive_in_any_order_and_type(tmp_path, save):
    arrays = {
        "rows": np.arange(12.0).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(12, dtype=">i2").reshape(3, 4)),
        "number": np.float32(3),
        "none": np.zeros((0, 4)),
        "words": np.array(["a", "bc"]),
        "records": np.array([(1, 2.0)], [("i", "i4"), ("depth", "f4")]),
    }
    save(tmp_path / "a.npz", **arrays)
    assert array_names(tmp_path / "a.npz") == tuple(arrays)
    found = read_arrays(tmp_path / "a.npz", everything)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)
        np.save(tmp_path / "a.npy", values)
        assert np.array_equal(read_npy(tmp_path / "a.npy"), values)


def test_only_what_is_asked_for_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.ones(3), junk=np.array([{}]))
    assert list(read_arrays(tmp_path / "a.npz", lambda names: ("depth",))) == ["depth"]


def npy(shape: str, dtype: str = "<f4", body: bytes = b"") -> bytes:
    """An npy whose header says what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy("(86000000000,)"), "claims .86000000000,. of float32, more than the"),
        (npy("(4, -1)", body=bytes(64)), "claims .4, -1. of float32"),
        (npy("(9,)", "|V0", bytes(64)), "claims .9,. of"),
        (npy("(2,)", "|O", bytes(64)), "holds object, no numbers"),
        (npy("(16,)", body=bytes(64))[:-30], "cut short|more than the"),
        (b"\x93NUMPY\x09\x00", "numpy's format 9.0 is not read"),
        (b"nonsense that is no array", "magic string"),
    ],
)
def test_what_a_header_claims_is_held_against_the_file(tmp_path, data, message):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_npy(tmp_path / "a.npy")
    with ZipFile(tmp_path / "a.npz", "w", ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(ValueError, match=message):
        read_arrays(tmp_path / "a.npz", everything)


def test_pickled_arrays_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    data = io.BytesIO()
    np.save(data, np.array([Trap()], object), allow_pickle=True)
    (tmp_path / "a.npy").write_bytes(data.getvalue())
    with pytest.raises(ValueError, match="no numbers"):
        read_npy(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()
