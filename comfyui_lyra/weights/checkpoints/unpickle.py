"""What a pickle describes, without running it.

The opcodes are walked by hand. A global is never looked up: a name in ``BUILT`` builds a tensor or a plain container,
every other one becomes an ``Inert`` that remembers its name. Calling an inert thing, making one or giving it a state
gives an inert thing. So nothing is imported and nothing runs, whatever the file says.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

OPCODES = 20_000_000  # a checkpoint with its optimizer has a hundred thousand; as many elements may be copied
LONGEST_NAME = 1000  # characters of a global's name
STORAGES = {
    "BoolStorage": torch.bool, "ByteStorage": torch.uint8, "CharStorage": torch.int8, "ShortStorage": torch.int16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
    "Float8_e4m3fnStorage": torch.float8_e4m3fn, "Float8_e5m2Storage": torch.float8_e5m2,
    "UntypedStorage": torch.uint8,
}  # fmt: skip
DTYPES = {f"torch.{name}": getattr(torch, name) for name in (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64",
)}  # fmt: skip


class Damaged(ValueError):
    """A file that ends too early or contradicts itself."""


class Stream(Protocol):
    """What opcodes are read from: an open file, BytesIO or a memory map."""

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""

    def readline(self) -> bytes:
        """The next line."""

    def tell(self) -> int:
        """Where the next byte is."""


@dataclass(eq=False)
class Inert:
    """Something that a pickle names and nobody makes: a class, a function, an object of one."""

    name: str  # dotted, of the global
    args: object = None  # it was called with
    state: object = None  # it was given
    items: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True, eq=False)
class Stored:
    """The numbers behind tensors; ``data`` None where only the description of a file is wanted."""

    dtype: torch.dtype
    numel: int
    data: torch.UntypedStorage | None = None


def rebuilt(stored: Stored, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    """A tensor over stored numbers, on ``meta`` where they were not read; refused if it reaches beyond them."""
    dtype = DTYPES[rest[2].name] if len(rest) > 2 and isinstance(rest[2], Inert) else stored.dtype
    room = stored.numel * stored.dtype.itemsize // dtype.itemsize
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 64 or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise ValueError("no shape")
    count, reach = 1, offset + 1
    for length, step in zip(size, stride, strict=True):
        count, reach = count * length, reach + max(length - 1, 0) * step
    if count and (reach > room or count > room):
        raise ValueError("more numbers than are stored")
    if stored.data is None:
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")
    return torch.empty(0, dtype=dtype).set_(stored.data, offset, size, stride)


def as_dict(*given: object) -> dict:
    """A plain dictionary of what one is made from."""
    pairs = given[0] if given else ()
    if not isinstance(pairs, list | tuple | dict):
        raise ValueError("no pairs")
    found = pairs if isinstance(pairs, dict) else {plain_key(pair[0]): pair[1] for pair in pairs if len(pair) == 2}
    return dict(found)


def as_list(items: object = ()) -> list:
    """A plain list of a list or tuple."""
    if not isinstance(items, list | tuple):
        raise ValueError("no list")
    return list(items)


def first(value: object, *_: object) -> object:
    """What a wrapper holds."""
    return value


BUILT: dict[str, Callable[..., object]] = {  # the only globals that anything is made of
    "torch._utils._rebuild_tensor": rebuilt,
    "torch._utils._rebuild_tensor_v2": rebuilt,
    "torch._utils._rebuild_tensor_v3": rebuilt,
    "torch._utils._rebuild_parameter": first,
    "torch._utils._rebuild_parameter_with_state": first,
    "torch.Size": lambda sizes=(): tuple(as_list(sizes)),
    "torch.jit._pickle.build_intlist": as_list,
    "torch.jit._pickle.build_doublelist": as_list,
    "torch.jit._pickle.build_boollist": as_list,
    "torch.jit._pickle.build_tensorlist": as_list,
    "torch.jit._pickle.restore_type_tag": first,
    "collections.OrderedDict": as_dict,
    "collections.defaultdict": lambda *_: {},
    "builtins.dict": as_dict,
    "builtins.list": as_list,
    "builtins.set": as_list,
    "builtins.frozenset": as_list,
    "__builtin__.set": as_list,
    "__builtin__.frozenset": as_list,
}
Persistent = Callable[[object], object]  # a pickle's reference to what lies outside of it -> a Stored


def unpickle(stream: Stream | BinaryIO, persistent: Persistent) -> object:
    """The next pickle of a stream, which stands behind it afterwards; tensors, plain containers, inert things.

    Raises ``Damaged`` for bytes that are no pickle.
    """
    machine = _Machine(persistent)
    try:
        for count, (opcode, value, _) in enumerate(pickletools.genops(stream)):
            if count > OPCODES:
                raise Damaged(f"a pickle of more than {OPCODES} steps; no checkpoint has so many")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, value)
    except Damaged:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise Damaged(f"no pickle, or a damaged one ({error})") from error
    raise Damaged("a pickle without an end")


def plain_key(key: object) -> object:
    """A key whose hash takes no time and runs nothing: nested tuples are told apart by identity."""
    if isinstance(key, tuple) and len(key) <= 16 and all(isinstance(part, str | int | float) for part in key):
        return key if all(len(part) <= LONGEST_NAME for part in key if isinstance(part, str)) else Inert("key", key)
    return key if isinstance(key, str | int | float | bytes | None) else Inert("key", key)


VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NOTHING = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})


class _Machine:
    """The pickle machine's stack, marks and memo."""

    def __init__(self, persistent: Persistent):
        self.stack: list = []
        self.marked: list[list] = []
        self.memo: dict[int, object] = {}
        self.persistent = persistent
        self.copied = 0  # elements of containers and letters of names

    def spend(self, count: int) -> None:
        """Note that so much is copied: a few bytes of a pickle copy what was made before, however large."""
        self.copied += count
        if self.copied > OPCODES:
            raise Damaged(f"a pickle that copies more than {OPCODES} elements; no checkpoint copies so many")

    def named(self, *parts: str) -> Inert:
        """A global, by the parts of its name."""
        length = sum(map(len, parts))
        if length > LONGEST_NAME:
            raise Damaged(f"a pickle that names a global in more than {LONGEST_NAME} letters")
        self.spend(length)
        return Inert(".".join(parts))

    def made(self, called: object, args: object) -> object:
        """As ``call``, within what may be copied."""
        if isinstance(called, Inert) and isinstance(args, tuple):
            self.spend(sum(len(given) for given in args if isinstance(given, list | tuple | dict)))
        return call(called, args)

    def pop(self) -> object:
        return self.stack.pop()

    def since_mark(self) -> list:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def step(self, name: str, value: object) -> None:
        """Do one opcode."""
        if name in VALUES:
            self.stack.append(value)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in SHORT_TUPLES:
            count = SHORT_TUPLES[name]
            if len(self.stack) < count:
                raise Damaged("a pickle that takes more than there is")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[value])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[value] = self.stack[-1]
        elif name not in NOTHING:
            getattr(self, f"do_{name.lower()}")(value)

    def do_memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_mark(self, _: object) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def do_pop(self, _: object) -> None:
        self.stack.pop() if self.stack else self.since_mark()

    def do_pop_mark(self, _: object) -> None:
        self.since_mark()

    def do_dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def do_tuple(self, _: object) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def do_list(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(items)

    do_frozenset = do_list

    def do_dict(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(dict(pairs(items)))

    def do_append(self, _: object) -> None:
        item = self.pop()
        if isinstance(self.stack[-1], list):  # an inert thing keeps no list
            self.stack[-1].append(item)

    def do_appends(self, _: object) -> None:
        items = self.since_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    do_additems = do_appends

    def do_setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self.fill([key, value])

    def do_setitems(self, _: object) -> None:
        self.fill(self.since_mark())

    def fill(self, items: list) -> None:
        """Give the dictionary on top its items."""
        target = self.stack[-1]
        target = target.items if isinstance(target, Inert) else target
        if isinstance(target, dict):
            target.update(pairs(items))

    def do_global(self, value: str) -> None:
        self.stack.append(self.named(*value.split(" ", 1)))

    def do_stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Damaged("a pickle that names no global")
        self.stack.append(self.named(module, name))

    def do_extension(self, value: object) -> None:
        self.stack.append(self.named("copyreg", f"extension_{value}"))

    do_ext1 = do_ext2 = do_ext4 = do_extension

    def do_next_buffer(self, _: object) -> None:
        self.stack.append(Inert("out-of-band buffer"))

    def do_reduce(self, _: object) -> None:
        args, called = self.pop(), self.pop()
        self.stack.append(self.made(called, args))

    do_newobj = do_reduce

    def do_newobj_ex(self, _: object) -> None:
        self.pop()  # named arguments, which nothing of ours takes
        self.do_reduce(None)

    def do_obj(self, _: object) -> None:
        called, *args = self.since_mark()
        self.stack.append(self.made(called, tuple(args)))

    def do_inst(self, value: str) -> None:
        args = tuple(self.since_mark())
        self.stack.append(self.made(self.named(*value.split(" ", 1)), args))

    def do_build(self, _: object) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Inert):  # what plain containers are given beside their items is bookkeeping
            self.stack[-1].state = state

    def do_persid(self, value: object) -> None:
        self.stack.append(self.persistent(value))

    def do_binpersid(self, _: object) -> None:
        self.stack.append(self.persistent(self.pop()))


def pairs(items: list) -> Iterator[tuple[object, object]]:
    """Keys and values that stand in a row."""
    return ((plain_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def call(called: object, args: object) -> object:
    """What a table's entry makes of the arguments; an inert thing where it is in no table or cannot make it."""
    name = called.name if isinstance(called, Inert) and called.args is None else None
    if name == "torch._tensor._rebuild_from_type_v2" and isinstance(args, tuple) and len(args) == 4:
        return call(args[0], args[2])  # a subclass of Tensor: the tensor
    if name in BUILT and isinstance(args, tuple):
        try:
            return BUILT[name](*args)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError):
            return Inert(name, args)
    return Inert(name or "call", args)
