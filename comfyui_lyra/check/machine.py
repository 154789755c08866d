"""What this machine has: versions, memory, kernels. What the models do on it is in ``stages``."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from ...kernels_glue import OPS, Op
from ...kernels_glue.proof import card, installed
from ..versions import pack_version
from .report import Finding, Section

ROOT = Path(__file__).resolve().parents[2]
TOLD = ("triton", "gsplat", "mamba-ssm", "causal-conv1d", "comfy-kitchen")  # beside what is required
OLDEST_TORCH = (2, 5)
MEMINFO = Path("/proc/meminfo")
ROOM = 10**9  # bytes that the mini models, and a stored scene of theirs, take at most


def machine(device: torch.device, folder: Path, host: Mapping[str, str] | None = None) -> tuple[Section, ...]:
    """Versions and free memory; ``folder`` is on the disk that will be written to.

    ``host`` holds names and versions of what this runs inside.
    """
    return (
        Section(title="Versions", findings=(*versions(device), *(told(*pair) for pair in (host or {}).items()))),
        Section(title="Free memory", findings=memory(device, folder)),
    )


def fast_kernels() -> Section:
    """What is known of each fast kernel: after work was done, also which of them were tried out and left out."""
    return Section(title="Kernels", findings=tuple(kernel for op in OPS for kernel in kernels(op)))


def told(name: str, found: str) -> Finding:
    """Something that is not judged."""
    return Finding(name=name, found=found)


def versions(device: torch.device) -> tuple[Finding, ...]:
    """What is installed: the pack, Python, torch, the driver, and each library that the pack needs or can use."""
    found = [
        told("pack", pack_version()),
        Finding(
            name="Python", found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            works=sys.version_info >= (3, 10), wanted="3.10 or newer",
        ),
        Finding(
            name="torch", found=torch.__version__, works=numbers(torch.__version__) >= OLDEST_TORCH,
            wanted="2.5 or newer",
        ),
        told("device", f"{device_name(device)}; {torch.get_num_threads()} CPU threads"),
        told("CUDA of torch", torch.version.cuda or (f"HIP {torch.version.hip}" if torch.version.hip else "none")),
        told("driver", driver(device)),
    ]  # fmt: skip
    found += [requirement(name, least) for name, least in requirements() if name != "torch"]
    return (*found, *(told(name, installed(name) or "not installed") for name in TOLD))


def requirements() -> list[tuple[str, str]]:
    """Name and least version ("" for any) of each library of requirements.txt; none where the file is not there."""
    file = ROOT / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = [re.match(r"([A-Za-z0-9_.-]+)(?:>=([0-9.]+))?", line) for line in lines]
    return [(match[1], match[2] or "") for match in found if match]


def requirement(name: str, least: str) -> Finding:
    """Whether a library that the pack needs is there, and new enough."""
    version = installed(name)
    fits = bool(version) and numbers(version) >= numbers(least)
    remedy = "" if fits else f"; install it: python -m pip install '{name}{f'>={least}' * bool(least)}'"
    return Finding(
        name=name,
        found=version or "not installed",
        works=fits,
        wanted=(f"{least} or newer" if least else "any") + remedy,
    )


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0]))


def device_name(device: torch.device) -> str:
    """What computes, as a person knows it."""
    if device.type != "cuda":
        return "CPU" if device.type == "cpu" else device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"


def driver(device: torch.device) -> str:
    """Version of the device's driver, in the system's words."""
    return card(device)[-1] if device.type == "cuda" else "none needed"


def kernels(op: Op) -> list[Finding]:
    """Each fast kernel of an operation: ready, absent, or left out since it proved wrong; plain torch always is."""
    found = []
    for name, kernel in op.kernels.items():
        reasons = [reason for reason in (op.absent(name), *op.left_out.get(name, ())) if reason]
        usual = "" if kernel.exact else " (deviates; taken by name only)"
        found.append(
            told(f"{op.name}: {name}", f"plain torch instead: {'; '.join(reasons)}" if reasons else f"ready{usual}")
        )
    return found


def memory(device: torch.device, folder: Path) -> tuple[Finding, ...]:
    """What is free of RAM, of the device's own memory and of the disk."""
    found = [roomy("RAM", free_ram())]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found.append(roomy("GPU", free, f" of {total / 1e9:.1f} GB"))
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return (*found, roomy("disk", shutil.disk_usage(there).free))


def roomy(name: str, free: int | None, more: str = "") -> Finding:
    """Free bytes, and whether they suffice for the mini models at least."""
    if free is None:
        return told(name, "not told by this system")
    return Finding(
        name=name, found=f"{free / 1e9:.1f} GB free{more}", works=free >= ROOM,
        wanted=f"{ROOM / 1e9:g} GB for the mini models; lyra plan tells for others",
    )  # fmt: skip


def free_ram() -> int | None:
    """Bytes of RAM that can be had, or None where the system does not tell."""
    try:
        if told := re.search(r"MemAvailable:\s+(\d+)", MEMINFO.read_text(encoding="utf-8")):
            return 1024 * int(told[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
