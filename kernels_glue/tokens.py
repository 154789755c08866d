"""What a transformer does token by token between its products, each as one pass over memory.

``residual_norm`` is the end of one branch and the beginning of the next; ``norm_rotate`` makes queries and keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from .proof import Probe, like, shortened, size_class
from .registry import Kernel, Op
from .triton_kernels.ready import cannot_run_triton, require_triton

EPSILON = 1e-6  # of every norm
ROWS = 8192  # tokens that the reference rotates at a time: its float32 copies stay small


def residual_norm_torch(
    x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x' = x + gate add and y = norm(x') (1 + scale) + shift, both [B, L, D].

    ``x`` is [B, L, D], ``shift``, ``scale`` and ``gate`` [B, 1, D] (no gate is 1), ``add`` [B or 1, L, D]; the norm
    has neither weight nor bias.
    """
    x = x + add if gate is None else torch.addcmul(x, gate, add)
    return x, layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (j, j + d/2) of x [B, L, heads, d] by the tables' angles; float32 inside."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def norm_rotate_torch(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads [B, L, heads, d] over their root mean square, times ``weight`` [d], turned by cos, sin [1, L, 1, d/2]."""
    slices = zip(*(t.split(ROWS, dim=1) for t in (x, cos, sin)), strict=True)
    turned = [rotate(rms_norm(part, weight.shape, weight, EPSILON), *angles) for part, *angles in slices]
    return turned[0] if len(turned) == 1 else torch.cat(turned, dim=1)


def _residual_refuses(x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None):
    if x.shape[-1] > 2**14:
        return f"holds a token in registers: at most 16384 channels, got {x.shape[-1]}"
    if not (x.is_contiguous() and add.is_contiguous()):
        return "needs tokens one after another"
    return cannot_run_triton(x, shift, scale, add, gate)


def _residual_sizes(x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None) -> tuple:
    return "residual_norm", x.shape[-1], size_class(x.shape[1]), gate is None, add.shape[0] == x.shape[0]


def _residual_inputs(
    x: Tensor, shift: Tensor, scale: Tensor, *, add: Tensor, gate: Tensor | None = None
) -> tuple[tuple, dict]:
    batch, width = min(x.shape[0], 2), x.shape[-1]
    rows = shortened(x.shape[1], 16, 4)
    made = like(x, 0, (batch, rows, width)), *(like(t, i, (batch, 1, width)) for i, t in enumerate((shift, scale), 1))
    options = {"add": like(add, 3, (min(add.shape[0], batch), rows, width))}
    if gate is not None:
        options["gate"] = like(gate, 4, (batch, 1, width))
    return made, options


def _rotate_refuses(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> str | None:
    width = x.shape[-1]
    if width & (width - 1) or width > 256 or x.shape[2] * width > 2**14:
        return f"needs heads of a power of two of channels, 256 and 16384 a token at most, got {tuple(x.shape[2:])}"
    if not x.is_contiguous() or cos.shape[0] != 1:
        return "needs heads one after another, and one table for all clips"
    return cannot_run_triton(x, weight, cos, sin)


def _rotate_sizes(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> tuple:
    return "norm_rotate", *x.shape[2:], size_class(x.shape[1])


def _rotate_inputs(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> tuple[tuple, dict]:
    batch, rows = min(x.shape[0], 2), shortened(x.shape[1], 16, 4)
    angles = (like(t, i, (1, rows, 1, t.shape[-1])) for i, t in enumerate((cos, sin), 2))
    return (like(x, 0, (batch, rows, *x.shape[2:])), like(weight, 1, weight.shape), *angles), {}


def _load(name: str) -> Callable[[], Callable]:
    def load() -> Callable:
        require_triton()
        from .triton_kernels import tokens

        return getattr(tokens, name)

    return load


# the reference rounds after every operation, the kernels once at the end
_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
_FILES = ("tokens.py", "triton_kernels/tokens.py")

residual_norm = Op(
    "residual_norm",
    residual_norm_torch,
    (
        Kernel(
            name="triton",
            load=_load("residual_norm_triton"),
            refuses=_residual_refuses,
            probe=Probe(sizes=_residual_sizes, inputs=_residual_inputs, limits=_LIMITS, files=_FILES),
        ),
    ),
)
norm_rotate = Op(
    "norm_rotate",
    norm_rotate_torch,
    (
        Kernel(
            name="triton",
            load=_load("norm_rotate_triton"),
            refuses=_rotate_refuses,
            probe=Probe(sizes=_rotate_sizes, inputs=_rotate_inputs, limits=_LIMITS, files=_FILES),
        ),
    ),
)
