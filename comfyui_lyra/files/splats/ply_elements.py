"""The PLY container: a header that names elements and their properties, then their rows, ascii or binary."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
LENGTHS = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"}  # of lists, as struct names them
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}

Columns = dict[str, np.ndarray]  # one array [rows] a property


@dataclass
class Element:
    """One element of the header. A list property has two types: of its length, and of its items."""

    name: str
    rows: int
    properties: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_lists(self) -> bool:
        """Whether rows differ in length."""
        return any(len(types) == 2 for types in self.properties.values())


def read_elements(data: bytes, wanted: tuple[str, ...]) -> dict[str, Columns]:
    """The columns of the wanted elements that a PLY file holds; others are passed over, before or after them.

    Raises ValueError in one sentence for what is no PLY, is cut short, or is unsupported.
    """
    order, elements, start = read_header(data)
    if order == "=":
        return read_ascii(data[start:], elements, wanted)
    found: dict[str, Columns] = {}
    for element in elements:
        if wanted_left := {e.name for e in elements if e.name in wanted} - set(found):
            if element.has_lists:
                start = skip_lists(data, start, element, order, wanted_left)
                continue
            row = np.dtype([(name, order + types[0]) for name, types in element.properties.items()])
            stop = start + element.rows * row.itemsize
            if len(data) < stop:
                raise ValueError(
                    f"cut short: {element.rows} rows of '{element.name}' end at byte {stop}, the file at {len(data)}"
                )
            if element.name in wanted:
                table = np.ndarray(element.rows, row, data, start)
                found[element.name] = {name: table[name] for name in element.properties}
            start = stop
    return found


def read_header(data: bytes) -> tuple[str, list[Element], int]:
    """Byte order (``=`` means ascii), the elements, and where their rows start; lines end as on any system."""
    if data[:3] != b"ply" or data[3:4] not in (b"\n", b"\r"):
        raise ValueError("not a PLY file: it does not start with the line 'ply'")
    new_line = b"\r" if data[3:4] == b"\r" and data[4:5] != b"\n" else b"\n"
    end = data.find(new_line + b"end_header")
    start = data.find(new_line, end + 1) + 1
    if end < 0 or start == 0:
        raise ValueError("cut short: the PLY header has no 'end_header' line")
    order, elements = None, []
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", name, _] if name in ORDERS:
                order = ORDERS[name]
            case ["element", name, rows] if re.fullmatch("[0-9]{1,18}", rows):
                elements.append(Element(name, int(rows)))
            case ["property", kind, name] if kind in TYPES and elements and name not in elements[-1].properties:
                elements[-1].properties[name] = (TYPES[kind],)
            case ["property", "list", length, kind, name] if (
                kind in TYPES and TYPES.get(length) in LENGTHS and elements and name not in elements[-1].properties
            ):
                elements[-1].properties[name] = (TYPES[length], TYPES[kind])
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"unsupported PLY header line '{line.strip()}'")
    if order is None:
        raise ValueError("unsupported PLY: the header names no format")
    return order, elements, start


def read_ascii(body: bytes, elements: list[Element], wanted: tuple[str, ...]) -> dict[str, Columns]:
    """As ``read_elements``, for rows written as text, a line each."""
    lines = [line for line in body.splitlines() if line.strip()]
    found: dict[str, Columns] = {}
    start = 0
    for element in elements:
        rows, start = lines[start : start + element.rows], start + element.rows
        if element.name not in wanted:
            continue
        if element.has_lists:
            raise ValueError(f"unsupported PLY: element '{element.name}' has a list property")
        if len(rows) < element.rows:
            raise ValueError(f"cut short: expected {element.rows} rows of '{element.name}', got {len(rows)}")
        try:
            table = np.array(b" ".join(rows).split(), np.float64).reshape(element.rows, len(element.properties))
        except ValueError as error:
            raise ValueError(
                f"unreadable PLY: a row of '{element.name}' is not {len(element.properties)} numbers"
            ) from error
        with np.errstate(invalid="ignore", over="ignore"):  # of numbers that their type cannot hold
            found[element.name] = {
                name: column.astype(types[0])
                for (name, types), column in zip(element.properties.items(), table.T, strict=True)
            }
    return found


def skip_lists(data: bytes, start: int, element: Element, order: str, wanted: set[str]) -> int:
    """The byte after an element whose rows differ in length, walking list by list."""
    if element.name in wanted:
        raise ValueError(f"unsupported PLY: element '{element.name}' has a list property")
    lists, gap = [], 0  # fixed bytes before each list, how its length is read, bytes of the length and of an item
    for first, *item in element.properties.values():
        size = np.dtype(first).itemsize
        if item:
            lists.append((gap, struct.Struct(order + LENGTHS[first]).unpack_from, size, np.dtype(item[0]).itemsize))
        gap = 0 if item else gap + size
    row = -1
    try:
        for row in range(element.rows):  # a file that claims more rows than it has bytes ends in one of the first
            for before, unpack, size, item in lists:
                start += before
                (length,) = unpack(data, start)
                if length < 0:
                    raise ValueError(f"unreadable PLY: row {row} of '{element.name}' has a list of length {length}")
                start += size + length * item
            start += gap
    except struct.error as error:
        raise ValueError(f"cut short: the file ends in row {row} of {element.rows} of '{element.name}'") from error
    return start


def stack(columns: Columns, names: Sequence[str]) -> Tensor:
    """Some columns as one float32 tensor [rows, names]."""
    table = np.empty((len(columns[names[0]]), len(names)), np.float32)
    for start in range(0, len(table), 1 << 14):  # a block of rows stays in the cache while its columns are picked
        block = slice(start, start + (1 << 14))
        for i, name in enumerate(names):
            with np.errstate(over="ignore"):  # of doubles; infinity is the reader's to judge
                table[block, i] = columns[name][block]
    return torch.from_numpy(table)
