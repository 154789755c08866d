"""Operations with a plain torch reference, and the faster kernels that may stand in for it."""

from .attention import attention
from .causal_conv import causal_conv
from .quantised import linear, norm_rows, product, quantise_rows
from .rasterizer.rasterize import rasterize
from .registry import Kernel, KernelUnavailable, Op
from .ssd_scan import ssd_scan
from .ssim import ssim
from .tokens import norm_rotate, residual_norm

OPS = (
    attention, causal_conv, linear, norm_rotate, norm_rows, product, quantise_rows, rasterize, residual_norm, ssd_scan,
    ssim,
)  # fmt: skip

__all__ = [
    "OPS", "Kernel", "KernelUnavailable", "Op", "attention", "causal_conv", "linear", "norm_rotate",
    "norm_rows", "product", "quantise_rows", "rasterize", "residual_norm", "ssd_scan", "ssim",
]  # fmt: skip
