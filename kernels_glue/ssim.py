"""Structural similarity that optimisation looks at: its gradient in closed form, from three blurred maps."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .proof import Probe, like
from .registry import Kernel, Op
from .triton_kernels.ready import no_card_for_triton, require_triton

WINDOW, SIGMA = 11, 1.5  # pixels of the Gaussian window (Wang et al. 2004)
BORDER = WINDOW - 1  # rows and columns that the windows that fit leave out
C1, C2 = 0.01**2, 0.03**2  # the stabilisers, for pictures in [0, 1]
MIDDLE = 0.5  # colours are taken about it: variances are small differences, exact enough in float32 if means are small


def ssim_torch(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of frames [B, H, W, C] in [0, 1]: [B], population covariance, without the border.

    Differentiable in ``x`` alone. In the frames' own float type, unlike ``quality.scores``: a gradient needs no more.
    """
    check_frames(x, y)
    return Similarity.apply(x, y)


def check_frames(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless two stacks of frames can be compared."""
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"ssim: frames must be two of [B, H, W, C], got {list(x.shape)} and {list(y.shape)}")
    if min(x.shape[1:3]) < WINDOW:
        raise ValueError(f"ssim: frames of {x.shape[2]}x{x.shape[1]} are too small; 11x11 pixels at least")


class Similarity(torch.autograd.Function):
    """``ssim_torch``; keeps the frames and three maps of their size."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        """Similarity a frame; the slopes of each window along its three means that depend on x are kept."""
        a, b = x - MIDDLE, y - MIDDLE
        mean_x, mean_y, power, mixed = blurred(a), blurred(b), blurred(a * a + b * b), blurred(a * b)
        similar, slopes = windows(mean_x, mean_y, power, mixed, slopes=ctx.needs_input_grad[0])
        ctx.save_for_backward(x, y, *slopes)
        return similar.mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        """With G* the blur's transpose: ``G*(d mean) + 2 x G*(d power) + y G*(d mixed)``, of each window's slopes."""
        x, y, along_mean, along_power, along_mixed = ctx.saved_tensors
        found = spread(along_mean)
        found.addcmul_(x - MIDDLE, spread(along_power), value=2).addcmul_(y - MIDDLE, spread(along_mixed))
        return found.mul_((grad / along_mean[0].numel())[:, None, None, None]), None


def windows(
    mean_x: Tensor, mean_y: Tensor, power: Tensor, mixed: Tensor, slopes: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Similarity of windows from the means of x, y, x^2 + y^2 and x y; its slopes along the first and the last two."""
    variances, covariance = power - mean_x * mean_x - mean_y * mean_y + C2, 2 * (mixed - mean_x * mean_y) + C2
    light, other = mean_x + MIDDLE, mean_y + MIDDLE
    bright, both = light * light + other * other + C1, 2 * light * other + C1
    inverse = 1 / (bright * variances)
    similar = both * covariance * inverse
    if not slopes:
        return similar, ()
    along_power, along_mixed = -similar / variances, 2 * both * inverse
    along_mean = 2 * (other * covariance * inverse - light * similar / bright - mean_x * along_power)
    return similar, (along_mean.sub_(mean_y * along_mixed), along_power, along_mixed)


def weights(like: Tensor) -> Tensor:
    """The window along one axis [11], float32 or 64 as ``like``, where it lies."""
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    found = (-0.5 * (offsets / SIGMA).square()).exp()
    return found / found.sum()


WEIGHTS = weights(torch.zeros((), dtype=torch.float64, device="cpu")).tolist()


def blurred(maps: Tensor) -> Tensor:
    """Gaussian means of [B, H, W, C] over the windows that fit: [B, H - 10, W - 10, C].

    Sums of shifted maps: a convolution of one channel is several times slower, on CPUs and GPUs alike.
    """
    for axis in (1, 2):
        length = maps.shape[axis] - BORDER
        found = maps.narrow(axis, 0, length) * WEIGHTS[0]
        for place, weight in enumerate(WEIGHTS[1:], start=1):
            found.add_(maps.narrow(axis, place, length), alpha=weight)
        maps = found
    return maps


def spread(maps: Tensor) -> Tensor:
    """The transpose of ``blurred``: [B, H - 10, W - 10, C] -> [B, H, W, C]."""
    for axis in (2, 1):
        shape = list(maps.shape)
        length, shape[axis] = shape[axis], shape[axis] + BORDER
        found = maps.new_zeros(shape)
        for place, weight in enumerate(WEIGHTS):
            found.narrow(axis, place, length).add_(maps, alpha=weight)
        maps = found
    return maps


def load_triton() -> Callable:
    """Our own kernel, which needs Triton alone."""
    require_triton()
    from .triton_kernels.ssim import ssim_triton

    return ssim_triton


def triton_refuses(x: Tensor, y: Tensor) -> str | None:
    """It is written for float32."""
    if x.dtype != torch.float32 or y.dtype != torch.float32:
        return f"needs float32, not {x.dtype} and {y.dtype}"
    return no_card_for_triton(x, y)


def _probe_sizes(x: Tensor, y: Tensor) -> tuple:
    return "channels", x.shape[-1]


def _probe_inputs(x: Tensor, y: Tensor) -> tuple[tuple, dict]:
    """Frames of more than a tile each way, which end within one."""
    shape = min(2, len(x)), 45, 101, x.shape[-1]
    return (like(x, 0, shape, torch.rand), like(y, 1, shape, torch.rand)), {}


ssim = Op(
    "ssim",
    ssim_torch,
    (
        Kernel(
            name="triton",
            load=load_triton,
            refuses=triton_refuses,
            probe=Probe(
                sizes=_probe_sizes,
                inputs=_probe_inputs,
                limits={torch.float32: 1e-4},  # rounding of means beside C2, which divides small variances
                files=("ssim.py", "triton_kernels/ssim.py"),
            ),
        ),
    ),
)
