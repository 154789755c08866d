"""How long a pass of the full-size teacher takes and what memory it needs, in bfloat16 with random weights."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import gelu, scaled_dot_product_attention

from ...kernels_glue.attention import attention
from ...kernels_glue.quantised import BITS, MULTIPLIES, Bits, linear, norm_rows, product, quantise_rows
from ...kernels_glue.registry import KernelUnavailable, plain
from ...kernels_glue.tokens import norm_rotate, residual_norm
from ..configs import TEACHER_INPUTS, TEACHER_PRESETS, TeacherConfig
from ..cost.flops import flops, text_flops
from ..cost.report import matmul_speed
from ..cost.timing import measure
from ..gen3c.dit import GEN3C, build
from ..gen3c.load import Teacher
from ..gen3c.tokens import ROWS

SDPA = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


def random_teacher(config: TeacherConfig, device: torch.device, home: torch.device | None = None) -> GEN3C:
    """The network in bfloat16 with small normal weights, made by the device; they lie at ``home``, by default there."""
    model = build(config).bfloat16().to_empty(device=home or device).eval()
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.empty_like(parameter, device=device).normal_(std=0.02, generator=generator))
    return model


def row(name: str, work: float, call: Callable[[], object], device: torch.device, repeats: int, limit: float) -> str:
    """A line of the table, with its share of ``limit`` operations a second; a kernel that cannot run here says why."""
    try:
        seconds, peak = measure(call, device, repeats)
    except RuntimeError as error:  # KernelUnavailable and out of memory among them
        said = str(error).strip() or type(error).__name__
        return f"| {name} | - | - | - | - | {said.splitlines()[0][:160]} |"
    done = f"{work / seconds / 1e12:.1f} | {work / seconds / limit:.0%}" if work else "- | -"
    return f"| {name} | {seconds:.3g} | {done} | {peak:.2f} | |"


def attention_rows(config: TeacherConfig, device: torch.device, repeats: int, limit: float) -> Iterator[str]:
    """One self-attention by each of torch's kernels and by each backend of ours."""
    _, t, h, w = config.latent_shape
    shape = (3, 1, t * h * w // 4, config.heads, config.head_dim)
    qkv = torch.randn(shape, dtype=torch.bfloat16, device=device).transpose(2, 3)

    def alone(kernel: SDPBackend) -> Tensor:
        with sdpa_kernel(kernel):
            return scaled_dot_product_attention(*qkv)

    calls = {f"torch {kernel.name}": partial(alone, kernel) for kernel in SDPA}
    calls |= {
        f"backend {name}": partial(attention, *qkv, backend=name, sinks=h * w // 4) for name in attention.backends
    }
    for name, call in calls.items():
        yield row(f"attention, {name}", flops(config)[0], call, device, repeats, limit)


def linear_rows(config: TeacherConfig, device: torch.device, repeats: int, limit: float) -> Iterator[str]:
    """Each kind of product of a block: exact, in 8 bits by each kernel, and with quantising on its own."""
    _, t, h, w = config.latent_shape
    tokens, width = t * h * w // 4, config.heads * config.head_dim
    for depth, outputs in ((width, width), (width, 4 * width), (4 * width, width)):
        x = torch.randn(1, tokens, depth, dtype=torch.bfloat16, device=device)
        weight = torch.randn(outputs, depth, dtype=torch.bfloat16, device=device)
        name, work = f"linear {depth} to {outputs}", 2.0 * tokens * depth * outputs
        yield row(f"{name}, exact", work, partial(linear, x, weight), device, repeats, limit)
        for bits, backends in MULTIPLIES.items():
            given = *quantise_rows(x, BITS[bits]), *quantise_rows(weight, BITS[bits]), x.dtype
            for backend in backends:
                call = partial(product, *given, backend=backend)
                yield row(f"{name}, {bits} by {backend}, already quantised", work, call, device, repeats, limit)
            call = partial(linear, x, weight, backend=bits)
            yield row(f"{name}, {bits}, quantised apart, its weight too", work, call, device, repeats, limit)


def between_rows(config: TeacherConfig, device: torch.device, repeats: int) -> Iterator[str]:
    """What stands between products, as plain torch and as one kernel, with and without 8 bits."""
    _, t, h, w = config.latent_shape
    tokens, heads = t * h * w // 4, (config.heads, config.head_dim)
    width = config.heads * config.head_dim
    x, add, y = torch.randn(3, 1, tokens, width, dtype=torch.bfloat16, device=device).unbind(0)
    shift, scale, gate = torch.randn(3, 1, 1, width, dtype=torch.bfloat16, device=device).unbind(0)
    angles = torch.randn(2, 1, tokens, 1, config.head_dim // 2, device=device).unbind(0)
    wide = torch.randn(1, min(tokens, ROWS), 4 * width, dtype=torch.bfloat16, device=device)
    branch = {"add": add, "gate": gate}
    calls: dict[str, partial] = {
        "gate, sum, norm, modulation": partial(residual_norm, x, shift, scale, **branch),
        "norm and rotation": partial(
            norm_rotate, y.unflatten(-1, heads), torch.ones_like(shift[0, 0, : heads[1]]), *angles
        ),
    }
    for bits, dtype in BITS.items():
        calls[f"gate, sum, norm, modulation, {bits}"] = partial(norm_rows, x, shift, scale, dtype, **branch)
        calls[f"rows to {bits}"] = partial(quantise_rows, x, dtype)
        calls[f"GELU of {len(wide[0])} tokens, {bits}"] = partial(quantise_rows, wide, dtype, True)
    yield row(f"GELU of {len(wide[0])} tokens, exact, plain torch", 0, partial(gelu, wide), device, repeats, 1)
    for name, call in calls.items():
        for backend in ("torch", "triton"):
            told = "plain torch" if backend == "torch" else "one kernel"
            yield row(f"{name}, {told}", 0, partial(call, backend=backend), device, repeats, 1)


def pass_rows(config: TeacherConfig, device: torch.device, repeats: int, compiled: bool, limit: float) -> Iterator[str]:
    """A pass of the whole network: plain torch, by attention, products in 8 bits, blocks compiled, weights streamed."""
    model, shape = random_teacher(config, device), config.latent_shape[1:]
    x = torch.randn(1, TEACHER_INPUTS, *shape, dtype=torch.bfloat16, device=device)
    text = torch.randn(1, config.text_rows, config.text_dim, dtype=torch.bfloat16, device=device)
    c_noise, work = torch.zeros(1, device=device), flops(config)[1]
    with plain():
        call = partial(model, x, c_noise, text)
        yield row("pass, eager, plain torch throughout", work, call, device, repeats, limit)
    names = attention.backends[1:]  # "auto" is one of the others
    for name in names:
        call = partial(model, x, c_noise, text, backend=name)
        yield row(f"pass, eager, attention {name}", work, call, device, repeats, limit)
    call = partial(model, x, c_noise, text[:, :0])
    yield row("pass, eager, without text", work - text_flops(config), call, device, repeats, limit)
    for bits in BITS:
        call = model = None  # two do not fit on small cards
        model = random_teacher(config, device)
        if reason := reason_against(model, bits):
            yield f"| pass, eager, products in {bits} | - | - | - | - | {reason[:160]} |"
            continue
        for name in names:
            call = partial(model, x, c_noise, text, backend=name)
            label = f"pass, eager, products in {bits}, attention {name}"
            yield row(label, work, call, device, repeats, limit)
    if compiled:  # takes minutes
        call = model = None
        model = random_teacher(config, device)
        model.compile_blocks()
        for name in names:
            call = partial(model, x, c_noise, text, backend=name)
            yield row(f"pass, compiled, attention {name}", work, call, device, repeats, limit)
    call = model = None
    network = random_teacher(config, device, torch.device("cpu"))
    streamed = Teacher(network=network, config=config, fingerprint="random", dtype=torch.bfloat16).streamed(device)
    call = partial(streamed.network, x, c_noise, text)
    yield row("pass, eager, weights streamed from RAM", work, call, device, repeats, limit)


def reason_against(model: GEN3C, bits: Bits) -> str:
    """Put a network's products into 8 bits, or say why they cannot be."""
    try:
        model.use_linears(bits)
    except KernelUnavailable as error:
        return str(error)
    return ""


@torch.inference_mode()
def bench_teacher(config: TeacherConfig, device: torch.device, repeats: int, compiled: bool = True) -> Iterator[str]:
    """Lines of a Markdown table."""
    limit = matmul_speed(device, torch.bfloat16)
    yield f"| what | s | TFLOP/s | of this card's {limit / 1e12:.3g} | GB above weights and inputs | |"
    yield "|---|---|---|---|---|---|"
    yield from between_rows(config, device, repeats)
    yield from linear_rows(config, device, repeats, limit)
    yield from attention_rows(config, device, repeats, limit)
    yield from pass_rows(config, device, repeats, compiled, limit)


def rows(device: torch.device) -> Iterator[str]:
    """The table of the released size."""
    return bench_teacher(TEACHER_PRESETS["gen3c"], device, repeats=3)
