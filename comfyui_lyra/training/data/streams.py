"""The random numbers of a run: one generator of each kind from one seed, none of them global."""

import logging
import random
import struct

import numpy as np
import torch

log = logging.getLogger("lyra")

OWN = "cuda"  # in states: of the device, whichever it is
PYTHON, NUMPY = "<625I?d", "<624Ii?d"  # Mersenne twister words, position, and the normal number kept for later


class Streams:
    """Generators whose states travel with a checkpoint."""

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.python = random.Random(seed)
        self.numpy = np.random.RandomState(seed)  # the legacy generator: draws equal the reference's, number by number
        self.torch = torch.Generator().manual_seed(seed)
        is_own = torch.device(device).type != "cpu"
        self.own = torch.Generator(device).manual_seed(seed) if is_own else None  # of the device

    def state(self) -> dict[str, str]:
        """The state of each generator in hexadecimal digits."""
        _, words, kept = self.python.getstate()
        _, keys, position, has_kept, normal = self.numpy.get_state()
        states = {
            "python": struct.pack(PYTHON, *words, kept is not None, kept or 0.0),
            "numpy": struct.pack(NUMPY, *keys.tolist(), position, bool(has_kept), normal),
            "torch": self.torch.get_state().numpy().tobytes(),
        }
        if self.own is not None:
            states[OWN] = self.own.get_state().numpy().tobytes()
        return {name: state.hex() for name, state in states.items()}

    def restore(self, state: dict[str, str]) -> None:
        """Continue where ``state`` was taken; a run that moved to or from the CPU keeps its fresh device generator."""
        raw = {name: bytes.fromhex(digits) for name, digits in state.items()}
        *words, has_kept, kept = struct.unpack(PYTHON, raw["python"])
        self.python.setstate((3, tuple(words), kept if has_kept else None))
        *keys, position, has_kept, normal = struct.unpack(NUMPY, raw["numpy"])
        self.numpy.set_state(("MT19937", np.array(keys, np.uint32), position, int(has_kept), normal))
        self.torch.set_state(torch.frombuffer(bytearray(raw["torch"]), dtype=torch.uint8))
        if self.own is not None and OWN in raw:
            self.own.set_state(torch.frombuffer(bytearray(raw[OWN]), dtype=torch.uint8))
        elif (self.own is not None) != (OWN in raw):
            log.info("the run moved between the CPU and another device, whose random numbers start afresh")
