"""How long a pass of the full-size teacher takes and what memory it needs, in bfloat16 with random weights."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ...kernels_glue.attention import attention
from ...kernels_glue.registry import plain
from ..configs import TEACHER_INPUTS, TEACHER_PRESETS, TeacherConfig
from ..cost.flops import flops
from ..cost.report import matmul_speed
from ..cost.timing import measure
from ..gen3c.dit import GEN3C, build

SDPA = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def random_teacher(config: TeacherConfig, device: torch.device) -> GEN3C:
    """The network in bfloat16 with small normal weights, made on the device."""
    model = build(config).bfloat16().to_empty(device=device).eval()
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02, generator=generator)
    return model


def row(name: str, work: float, call: Callable[[], object], device: torch.device, repeats: int, limit: float) -> str:
    """A line of the table, with its share of ``limit`` operations a second; a kernel that cannot run here says why."""
    try:
        seconds, peak = measure(call, device, repeats)
    except RuntimeError as error:  # KernelUnavailable and out of memory among them
        return f"| {name} | - | - | - | - | {str(error).splitlines()[0][:160]} |"
    return f"| {name} | {seconds:.3g} | {work / seconds / 1e12:.1f} | {work / seconds / limit:.0%} | {peak:.2f} | |"


def attention_rows(config: TeacherConfig, device: torch.device, repeats: int, limit: float) -> Iterator[str]:
    """One self-attention by each of torch's kernels and by each backend of ours."""
    _, t, h, w = config.latent_shape
    shape = (3, 1, t * h * w // 4, config.heads, config.head_dim)
    qkv = torch.randn(shape, dtype=torch.bfloat16, device=device).transpose(2, 3)

    def alone(kernel: SDPBackend) -> Tensor:
        with sdpa_kernel(kernel):
            return scaled_dot_product_attention(*qkv)

    calls = {f"torch {kernel.name}": partial(alone, kernel) for kernel in SDPA}
    calls |= {f"backend {name}": partial(attention, *qkv, backend=name) for name in attention.backends}
    for name, call in calls.items():
        yield row(f"attention, {name}", flops(config)[0], call, device, repeats, limit)


def pass_rows(config: TeacherConfig, device: torch.device, repeats: int, compiled: bool, limit: float) -> Iterator[str]:
    """A pass of the whole network: plain torch, then by backend, eager and with each block compiled."""
    model, shape = random_teacher(config, device), config.latent_shape[1:]
    x = torch.randn(1, TEACHER_INPUTS, *shape, dtype=torch.bfloat16, device=device)
    text = torch.randn(1, config.text_rows, config.text_dim, dtype=torch.bfloat16, device=device)
    c_noise = torch.zeros(1, device=device)
    with plain():
        call = partial(model, x, c_noise, text)
        yield row("pass, eager, plain torch throughout", flops(config)[1], call, device, repeats, limit)
    for mode in ("eager", "compiled") if compiled else ("eager",):
        if mode == "compiled":
            for block in model.transformer_blocks:
                block.compile(dynamic=False)
        for name in attention.backends[1:]:  # "auto" is one of the others
            call = partial(model, x, c_noise, text, backend=name)
            yield row(f"pass, {mode}, attention {name}", flops(config)[1], call, device, repeats, limit)


@torch.inference_mode()
def bench_teacher(config: TeacherConfig, device: torch.device, repeats: int, compiled: bool = True) -> Iterator[str]:
    """Lines of a Markdown table."""
    limit = matmul_speed(device, torch.bfloat16)
    yield f"| what | s | TFLOP/s | of this card's {limit / 1e12:.3g} | GB above weights and inputs | |"
    yield "|---|---|---|---|---|---|"
    yield from attention_rows(config, device, repeats, limit)
    yield from pass_rows(config, device, repeats, compiled, limit)


def rows(device: torch.device) -> Iterator[str]:
    """The table of the released size."""
    return bench_teacher(TEACHER_PRESETS["gen3c"], device, repeats=3)
