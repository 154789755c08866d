import argparse
import builtins
import collections
import copyreg
import io
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.weights.checkpoints import unpickle as module
from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_content, read_state
from lyra_pack.comfyui_lyra.weights.checkpoints.torch_files import no_reference
from lyra_pack.comfyui_lyra.weights.checkpoints.unpickle import BUILT, Damaged, Inert, unpickle

LEGACY = {"_use_new_zipfile_serialization": False}


def walk(data: bytes) -> object:
    return unpickle(io.BytesIO(data), no_reference)


class LossScaler:
    """As DeepSpeed's: a plain object with a state."""

    def __init__(self):
        self.cur_scale = 65536.0


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


HARMLESS = {
    "bytes": io.BytesIO(b"fp8 meta"),
    "numpy scalar": np.float64(0.5),
    "numpy array": np.arange(3),
    "namespace": argparse.Namespace(lr=1e-4),
    "path": PurePosixPath("/data"),
    "scaler": LossScaler(),
    "counter": collections.Counter("abca"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "device": torch.device("cpu"),
    "dtype": torch.bfloat16,
    "size": torch.Size([2, 3]),
    "slice": slice(1, 2),
    "complex": 1 + 2j,
    "set": {1, 2},
    "lambda-like": len,
}


@pytest.mark.parametrize("given", [{}, LEGACY], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", HARMLESS)
def test_tensors_are_had_beside_any_harmless_object(tmp_path, what, given):
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.nn.Parameter(torch.ones(2).half())}
    content = {"model": weights | {"_extra_state": HARMLESS[what]}, "other": HARMLESS[what], "iteration": 7}
    torch.save(content, tmp_path / "model.pt", **given)
    state = read_state(tmp_path / "model.pt")
    assert state.keys() == {"a", "b"}
    assert torch.equal(state["a"], weights["a"]) and torch.equal(state["b"], weights["b"])
    assert type(state["b"]) is torch.Tensor and state["b"].dtype == torch.float16
    assert read_content(tmp_path / "model.pt")["iteration"] == 7


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_things_come_out_as_they_went_in(protocol):
    content = {
        "none": None, "yes": True, "no": False, "int": 2**80, "small": -3, "float": 0.1, "text": "é\ud800",
        "list": [1, [2]], "tuple": (1, (), (2, 3, 4, 5)), "dict": {1: "a", (1, "b"): 2},
        "bytes": b"\0\xff" if protocol > 2 else b"",
    }  # fmt: skip
    content["again"] = content["list"]
    found = walk(pickle.dumps(content, protocol))
    assert found["again"] is found["list"]
    if protocol <= 2:
        found["bytes"] = b""  # older protocols call a function for bytes, which nothing does here
    assert found == content


def marker(folder: Path) -> str:
    return f"open({str(folder / 'ran')!r}, 'w').close()"


ATTACKS = {
    "os.system": lambda here: Calls(os.system, f"touch {here}/ran"),
    "eval": lambda here: Calls(eval, marker(here)),
    "exec": lambda here: Calls(exec, marker(here)),
    "getattr": lambda here: Calls(getattr, Calls(__import__, "os"), "system"),
    "subprocess": lambda here: Calls(subprocess.Popen, ["touch", f"{here}/ran"]),
    "open": lambda here: Calls(open, f"{here}/ran", "w"),
    "nested": lambda here: Calls(Calls, Calls(eval, marker(here))),
    "map": lambda here: Calls(list, Calls(map, eval, [marker(here)])),
    "copyreg": lambda here: Calls(copyreg._reconstructor, LossScaler, object, None),
    "setattr": lambda here: Calls(setattr, LossScaler, "broken", 1),
    "load": lambda here: Calls(pickle.loads, pickle.dumps(Calls(eval, marker(here)))),
    "storage bytes": lambda here: Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(eval, marker(here)))),
    "torch.load": lambda here: Calls(torch.load, f"{here}/model.pt"),
    "rebuild": lambda here: Calls(torch._utils._rebuild_tensor_v2, Calls(eval, marker(here)), 0, (1,), (1,), False, {}),
    "subclass": lambda here: Calls(torch._tensor._rebuild_from_type_v2, eval, dict, (marker(here),), {}),
    "dict": lambda here: Calls(collections.OrderedDict, Calls(eval, marker(here))),
    "socket": lambda here: Calls(socket.create_connection, ("127.0.0.1", 9)),
}


@pytest.mark.parametrize("given", [{}, LEGACY], ids=["zip", "legacy"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_file_runs_nothing(tmp_path, attack, given):
    file = tmp_path / "model.pt"
    torch.save({"a": torch.ones(2), "evil": ATTACKS[attack](tmp_path)}, file, **given)
    state = read_state(file)
    assert list(state) == ["a"] and torch.equal(state["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"] and not hasattr(LossScaler, "broken")


def test_the_attacks_are_real(tmp_path):
    """What the test above reads does run for who unpickles it."""
    for attack in ("os.system", "eval", "map", "nested", "load"):
        torch.save(ATTACKS[attack](tmp_path), tmp_path / "model.pt")
        with suppress(TypeError):  # what it makes of the answer
            torch.load(tmp_path / "model.pt", weights_only=False)
        assert (tmp_path / "ran").exists(), attack
        (tmp_path / "ran").unlink()


def test_no_global_is_looked_up(monkeypatch):
    def trap(*names):
        raise AssertionError(names)

    data = b"cno_such_module_anywhere\nThing\n(S'x'\ntR}S'k'\nI1\nsb."
    monkeypatch.setattr("importlib.import_module", trap)
    monkeypatch.setattr(builtins, "__import__", trap)
    found = walk(data)
    monkeypatch.undo()
    assert isinstance(found, Inert) and found.name == "no_such_module_anywhere.Thing"
    assert found.args == ("x",) and found.state == {"k": 1}


def test_what_is_built_of_is_one_table_of_tensors_and_containers():
    roots = {name.rpartition(".")[0] for name in BUILT}
    assert roots == {"torch", "torch._utils", "torch.jit._pickle", "collections", "builtins", "__builtin__"}
    source = Path(module.__file__).read_text()
    assert not {"import_module", "__import__", "getattr(sys", "find_class"} & set(source.split())


OPCODES = {  # every way to make or to call, on a thing that must stay inert
    "inst": b"(S'x'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'x'\no.",
    "newobj": b"cos\nsystem\n(S'x'\nt\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\n(S'x'\nt}\x92.",
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'x'\ntR.",
    "extension": b"\x82\x01(S'x'\ntR.",
    "reduce of a reduce": b"cos\nsystem\n(S'x'\ntR(S'y'\ntR.",
    "reduce of a tuple": b"(cos\nsystem\nt(S'y'\ntR.",
    "build": b"cos\nsystem\n}S'__class__'\ncbuiltins\nint\nsb.",
    "build of a dict": b"}}S'__class__'\ncos\nsystem\nsb.",
    "persistent": b"Pos.system\n.",
}


@pytest.mark.parametrize("way", OPCODES)
def test_every_way_to_call_leaves_an_inert_thing(way):
    found = walk(OPCODES[way])
    assert isinstance(found, Inert | dict)


def zip_of(pickled: bytes, **records: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in records.items():
            archive.writestr(f"archive/data/{name.removeprefix('r')}", content)
    return file.getvalue()


def tensor(key: object = "0", numel: int = 4, size: tuple = (4,), stride: tuple = (1,), offset: int = 0) -> bytes:
    """A pickle {"a": tensor}, by hand; all that could be absurd is an argument."""

    class Reference:
        pass

    class Writer(pickle._Pickler):
        def persistent_id(self, thing):
            return ("storage", torch.FloatStorage, key, "cpu", numel) if isinstance(thing, Reference) else None

    class Rebuilt:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Reference(), offset, size, stride, False, {})

    file = io.BytesIO()
    Writer(file, 2).dump({"a": Rebuilt(), "b": "text"})
    return file.getvalue()


def test_a_tensor_by_hand_is_read(tmp_path):
    (tmp_path / "x.pt").write_bytes(zip_of(tensor(), r0=struct.pack("<4f", 1, 2, 3, 4)))
    assert read_state(tmp_path / "x.pt")["a"].tolist() == [1, 2, 3, 4]


ABSURD = {
    "more than stored": ({"size": (5,)}, "no tensors"),
    "terabytes by a stride of nothing": ({"size": (2**40,), "stride": (0,)}, "no tensors"),
    "beyond the integers": ({"size": (2**70,)}, "no tensors"),
    "negative": ({"size": (-4,)}, "no tensors"),
    "before the start": ({"offset": -1}, "no tensors"),
    "behind the end": ({"offset": 1}, "no tensors"),
    "backwards": ({"stride": (-1,)}, "no tensors"),
    "many axes": ({"size": (1,) * 100, "stride": (1,) * 100}, "no tensors"),
    "no such record": ({"key": "9"}, "missing or too few"),
    "a key that climbs": ({"key": "../../../etc/passwd"}, "missing or too few"),
    "a long key": ({"key": "x" * 10**6}, "missing or too few"),
    "a key of another kind": ({"key": ("a", 1)}, "missing or too few"),
    "a storage of a terabyte": ({"numel": 2**38}, "missing or too few"),
    "a storage beyond the integers": ({"numel": 2**80}, "no tensors"),
    "a negative storage": ({"numel": -4}, "no tensors"),
    "a storage counted in words": ({"numel": "4"}, "no tensors"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_claims_are_refused_and_take_no_memory(tmp_path, case):
    given, words = ABSURD[case]
    (tmp_path / "x.pt").write_bytes(zip_of(tensor(**given), r0=bytes(16)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=words):
        read_state(tmp_path / "x.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02K\x01" + b"2\x86" * depth


BOMBS = {
    "a key of 2**60 tuples": b"\x80\x02}" + nested_tuples(60)[2:] + b"K\x01s.",
    "a set of 2**60 tuples": b"\x80\x04\x8f(" + nested_tuples(60)[2:] + b"\x90.",
    "2**60 tuples": nested_tuples(60) + b".",
    "a list in itself": b"]q\x000h\x00h\x00a.",
    "a deep list": b"]" * 200_000 + b"a" * 199_999 + b".",
    "a far memo": b"]r\xff\xff\xff\x7f.",
    "a text of 4 GB": b"X\xff\xff\xff\x7fabc.",
    "a text of 2**63 bytes": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "bytes of 2**63": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a number of 2 GB": b"\x8b\xff\xff\xff\x7fabc.",
    "a long number": b"L" + b"9" * 100_000 + b"L\n.",
    "a frame of 2**63": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_take_neither_time_nor_memory(bomb):
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with suppress(Damaged):
        walk(BOMBS[bomb])
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def copies(what: bytes, times: int) -> bytes:
    """A list of 100,000, and ``times`` what a global makes of it."""
    return b"\x80\x02](" + b"N" * 100_000 + b"eq\x00\x85q\x01c" + what + b"\nq\x02(" + b"h\x02h\x01R" * times + b"l."


LONG_NAME = b"\x80\x04X\x40\x42\x0f\x00" + b"x" * 10**6 + b"q\x00(" + b"h\x00h\x00\x93" * 20_000 + b"l."
COPIES = {
    "lists": (copies(b"builtins\nlist", 20_000), "copies more than"),
    "sets": (copies(b"builtins\nset", 20_000), "copies more than"),
    "sizes": (copies(b"torch\nSize", 20_000), "copies more than"),
    "dictionaries": (copies(b"collections\nOrderedDict", 20_000), "copies more than"),
    "a name of 2 MB": (LONG_NAME, "more than 1000 letters"),
    "a name of 2 MB, older": (b"c" + b"x" * 10**6 + b"\nx\n.", "more than 1000 letters"),
    "many names": (b"\x80\x04X\xf4\x01\x00\x00" + b"x" * 500 + b"q\x00(" + b"h\x00h\x00\x93" * 20_100, "copies"),
}


@pytest.mark.parametrize("case", COPIES)
def test_a_small_pickle_copies_little(case):
    data, words = COPIES[case]
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(Damaged, match=words):
        walk(data)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 * 1024


def test_what_a_checkpoint_copies_is_let_through():
    assert len(walk(copies(b"builtins\nlist", 100))) == 100


def test_endless_keys_of_a_storage_are_not_written_out(tmp_path):
    key: object = "k"
    for _ in range(60):
        key = (key, key)
    (tmp_path / "x.pt").write_bytes(zip_of(tensor(key=key), r0=bytes(16)))
    with pytest.raises(ValueError, match="'tuple' are missing or too few"):
        read_state(tmp_path / "x.pt")


def test_no_endless_pickle(monkeypatch):
    monkeypatch.setattr(module, "OPCODES", 100)
    with pytest.raises(Damaged, match="more than 100 steps"):
        walk(b"]" * 200)


def test_a_compressed_pickle_is_read_up_to_a_bound(tmp_path, monkeypatch):
    from lyra_pack.comfyui_lyra.weights.checkpoints import torch_files

    monkeypatch.setattr(torch_files, "LARGEST_PICKLE", 1000)
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(ValueError, match="larger than any checkpoint's"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "data", [b"", b".", b"a.", b"h\x05.", b"(", b"t.", b"\x80\x02\x87.", b"u.", b"}(K\x01u.", b"\xfe."]
)
def test_broken_pickles_are_one_kind_of_error(data):
    with pytest.raises(Damaged):
        walk(data)


@pytest.mark.parametrize("given", [{}, LEGACY], ids=["zip", "legacy"])
def test_any_damage_of_a_file_is_a_value_error(tmp_path, given):
    """Whatever byte is wrong: nothing but ValueError, and no crash."""
    whole = io.BytesIO()
    torch.save({"model": {"a": torch.arange(6.0), "b": torch.ones(3).half()}, "o": LossScaler()}, whole, **given)
    generator, data = np.random.default_rng(0), whole.getvalue()
    file, read = tmp_path / "model.pt", 0
    for _ in range(300):
        broken = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            broken[place] = generator.integers(0, 256)
        file.write_bytes(broken)
        try:
            read += bool(read_state(file))
        except ValueError as error:
            assert str(error).startswith("model.pt ")
    assert 0 < read < 300


def test_python_itself_is_not_asked(tmp_path):
    """The standard library's unpickler is not even there."""
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    program = (
        "import sys, pickle, _pickle, torch\n"
        "def no(*_, **__): raise SystemExit('asked')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = _pickle.Unpickler = torch.load = no\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lyra_pack.comfyui_lyra.weights.checkpoints.state import read_state\n"
        f"print(read_state({str(tmp_path / 'x.pt')!r}))"
    )
    (tmp_path / "lyra_pack").symlink_to(Path(module.__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{'a': tensor([1.])}", done.stderr
