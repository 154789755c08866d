from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.check import machine as module
from lyra_pack.comfyui_lyra.check.machine import fast_kernels, kernels, machine, numbers, requirement, requirements
from lyra_pack.kernels_glue import OPS, Kernel, Op, causal_conv
from lyra_pack.kernels_glue.proof import Probe

CPU = torch.device("cpu")


def found(sections) -> dict[str, object]:
    return {finding.name: finding for section in sections for finding in section.findings}


def test_versions_name_what_is_installed_and_the_host():
    told = found(machine(CPU, Path(), {"ComfyUI": "0.33"}))
    assert told["torch"].found == torch.__version__ and told["torch"].works
    assert told["ComfyUI"].found == "0.33" and told["ComfyUI"].works is None
    assert {name for name, _ in requirements()} - {"torch"} <= told.keys()
    assert ("diffusers", "0.36") in requirements()


def test_a_library_that_is_missing_or_old_fails_with_the_command_that_mends_it():
    missing = requirement("no-such-library-at-all", "2.1")
    assert missing.works is False and "pip install 'no-such-library-at-all>=2.1'" in missing.wanted
    assert requirement("numpy", "999").works is False
    assert requirement("numpy", "1.0").works is True


@pytest.mark.parametrize(
    ("version", "parts"), [("2.11.0+cu128", (2, 11, 0)), ("0.36.0.dev0", (0, 36, 0)), ("", ()), ("unknown", ())]
)
def test_versions_compare_by_their_numbers(version, parts):
    assert numbers(version) == parts


def test_too_little_memory_fails(monkeypatch):
    monkeypatch.setattr(module, "free_ram", lambda: 10**8)
    assert found(machine(CPU, Path()))["RAM"].works is False
    monkeypatch.setattr(module, "free_ram", lambda: None)
    assert found(machine(CPU, Path()))["RAM"].works is None


def test_free_ram_is_less_than_all_there_is_and_more_than_nothing():
    free = module.free_ram()
    assert free is None or 10**7 < free < 10**14


def test_every_kernel_is_named_with_the_reason_of_its_absence():
    told = found([fast_kernels()])
    assert {f"{op.name}: {name}" for op in OPS for name in op.kernels} == told.keys()

    def load():
        raise ImportError("No module named 'fast'")

    nothing = Probe(sizes=lambda *_: (), inputs=lambda *_: ((), {}), limits={})
    kernel = Kernel(name="fast", load=load, refuses=lambda *_: None, probe=nothing)
    (finding,) = kernels(Op("thing", causal_conv.reference, (kernel,)))
    assert finding.found == "plain torch instead: not installed (No module named 'fast')"
    assert finding.works is None  # plain torch does the work
