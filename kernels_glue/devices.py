"""What differs from one kind of device to another; kinds that nobody thought of get what the CPU gets."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

WITHOUT_DOUBLES = ("mps",)  # Apple's


def by_device(table: Mapping[str, Value], device: torch.device | str) -> Value:
    """What a table says of a kind of device (``cuda``, ``cpu``); of one that it does not name, what it says of the CPU.

    For numbers that make things fast or fit, which are right, if slow, anywhere.
    """
    return table.get(torch.device(device).type, table["cpu"])


def doubled(tensor: Tensor) -> Tensor:
    """A tensor in float64; on the CPU where its device has none."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_DOUBLES else tensor).double()
