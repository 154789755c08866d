"""``--gpus N``: the same verb in N processes of this machine, a GPU each, as a launcher would start them."""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable

import torch
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from ...kernels_glue.registry import KernelUnavailable

STOPPED = 130


def side_by_side(function: Callable, options: argparse.Namespace) -> int:
    """Run a verb's function, one of a module, in ``options.gpus`` processes; the worst of their exit statuses.

    Raises ValueError where there are not so many cards.
    """
    there = torch.cuda.device_count()
    if options.device.type == "cuda" and options.gpus > there:
        raise ValueError(f"--gpus {options.gpus}: this machine has {there}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        spawn(member, (port, function, options), nprocs=options.gpus)
    except ProcessExitedException as ended:
        return ended.exit_code or 1
    return 0


def member(rank: int, port: int, function: Callable, options: argparse.Namespace) -> None:
    """One of the processes; its errors are told once, by itself."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": options.gpus, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in (told | {"MASTER_PORT": port}).items()})
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(message)s")
    try:
        function(options)
    except (ValueError, OSError, KernelUnavailable) as error:
        sys.stderr.write(f"lyra {options.verb}, process {rank + 1}: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
