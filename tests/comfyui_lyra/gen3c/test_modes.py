import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS
from lyra_pack.comfyui_lyra.gen3c import modes
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.gen3c.modes import MODES, as_possible, in_mode, told
from lyra_pack.comfyui_lyra.gen3c.sampler import Conditions, sample

CPU = torch.device("cpu")
SHAPE = (1, 16, 2, 4, 4)


def passes(settings: GenerateSettings) -> list[tuple[str, str]]:
    """(branch, attention) of every pass of one path."""
    seen = []

    def network(x, c_noise, text, branch, *, backend):
        seen.append((branch, backend))
        return torch.zeros(SHAPE)

    early, late = (partial(network, backend=b) for b in (settings.attention, settings.late_attention))
    conditions = Conditions(
        first=torch.zeros(1, 16, 1, 4, 4), warps=torch.zeros(1, 64, 2, 4, 4), text=torch.zeros(1, 1, 1),
        negative=torch.zeros(1, 1, 1),
    )  # fmt: skip
    sample(
        early, conditions, torch.zeros(SHAPE), torch.zeros(SHAPE), steps=settings.steps, guidance=settings.guidance,
        guidance_range=settings.guidance_range, solver=settings.solver, late=(settings.late_below, late),
    )  # fmt: skip
    return seen


def test_a_mode_decides_everything_it_speaks_of_and_nothing_else():
    odd = GenerateSettings(steps=7, guidance=3.0, seed=5, step_cache=0.3, foreground_masking=False, attention="torch")
    assert in_mode(odd, "as set") == odd
    for mode in MODES[1:]:
        decided = in_mode(odd, mode)
        assert decided == replace(in_mode(GenerateSettings(), mode), seed=5, foreground_masking=False)
    assert in_mode(odd, "exact") == GenerateSettings(seed=5, foreground_masking=False)
    with pytest.raises(ValueError, match="mode 'quick': use one of as set, exact, balanced, fast"):
        in_mode(odd, "quick")


def test_passes_of_a_path_by_mode():
    counts = {mode: len(passes(in_mode(GenerateSettings(), mode))) for mode in MODES[1:]}
    assert counts == {"exact": 70, "balanced": 22, "fast": 10}  # as the node's tooltip says


def test_early_passes_are_dense_late_ones_sparse_and_guidance_is_in_between():
    seen = passes(in_mode(GenerateSettings(), "balanced"))
    assert seen[0] == ("cond", "auto") and seen[-1] == ("cond", "sol-1.0")
    backends = [backend for _, backend in seen]
    assert backends == sorted(backends)  # auto, then sol: one change
    guided = [i for i, (branch, _) in enumerate(seen) if branch == "uncond"]
    assert min(guided) > 0 and max(guided) < len(seen) - 1


def test_where_sparse_attention_cannot_run_it_is_exact_with_a_word(caplog):
    settings = in_mode(GenerateSettings(), "fast")
    with caplog.at_level(logging.WARNING, logger="lyra"):
        found = as_possible(settings, TEACHER_PRESETS["mini"], torch.bfloat16, CPU)
    assert found == replace(settings, late_attention="", late_below=0.0, linears="exact")
    products, line = [record.getMessage() for record in caplog.records]
    assert "products in fp8 cannot run here (needs CUDA" in products and "exact ones instead, slower" in products
    assert "attention sol-1.5 cannot run here (needs" in line and "exact attention instead, slower" in line
    assert as_possible(found, TEACHER_PRESETS["mini"], torch.bfloat16, CPU) is found


def test_where_it_can_run_nothing_changes(monkeypatch):
    for op in (modes.attention, modes.linear):
        monkeypatch.setattr(op, "why_not", lambda *given, **_: None)
    settings = in_mode(GenerateSettings(), "fast")
    assert as_possible(settings, TEACHER_PRESETS["gen3c"], torch.bfloat16, CPU) is settings


def test_a_mode_in_words():
    assert told(in_mode(GenerateSettings(), "exact")) == (
        "35 steps of euler; guidance 1; no step cache; attention auto"
    )
    assert told(in_mode(GenerateSettings(), "fast")).endswith("sol-1.5 below noise 20; products in fp8")
    assert told(in_mode(GenerateSettings(), "balanced")) == (
        "16 steps of dpmpp_2m; guidance 1 at noise 0.5 to 20; step cache 0.05; attention auto, sol-1.0 below noise 20"
    )
