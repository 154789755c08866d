"""Operations with a plain torch reference, and the faster kernels that may stand in for it."""

from .attention import attention
from .causal_conv import causal_conv
from .rasterize import rasterize
from .registry import Kernel, KernelUnavailable, Op
from .ssd_scan import ssd_scan
from .ssim import ssim

OPS = (attention, causal_conv, rasterize, ssd_scan, ssim)

__all__ = ["OPS", "Kernel", "KernelUnavailable", "Op", "attention", "causal_conv", "rasterize", "ssd_scan", "ssim"]
