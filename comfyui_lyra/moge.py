"""Depth by the ``moge`` package, where it is installed, for those who work without ComfyUI's own MoGe nodes."""

from pathlib import Path

import torch
from torch import Tensor

from .geometry import Geometry, Scale
from .geometry_sources import from_moge


class Moge:
    """MoGe 1 (``moge.model.v1``), as in the reference, with weights from a file: model.pt of Ruicheng/moge-vitl."""

    def __init__(self, file: Path, device: torch.device | str = "cpu"):
        if not Path(file).is_file():
            raise FileNotFoundError(f"no MoGe weights at {file}; download model.pt of Ruicheng/moge-vitl")
        try:
            from moge.model.v1 import MoGeModel
        except ImportError as error:
            raise ValueError(
                f"the moge package cannot be imported ({error}); install it with pip from "
                "git+https://github.com/microsoft/MoGe.git, or give a depth picture"
            ) from error
        self.model = MoGeModel.from_pretrained(str(file)).to(device).eval()

    @torch.inference_mode()
    def geometry(self, frame: Tensor, scale: Scale = "auto") -> Geometry:
        """Geometry of a picture [H, W, 3] in [0, 1]."""
        found = self.model.infer(frame.permute(2, 0, 1))
        seen = {name: found[name][None].to(frame.device) for name in ("depth", "mask", "intrinsics")}
        return from_moge(frame[None], seen, scale)

    @torch.inference_mode()
    def depth(self, frame: Tensor) -> Tensor:
        """Depth [H, W] of a picture [H, W, 3] in MoGe's own unit, inf where background: an ``EstimateDepth``."""
        found = self.model.infer(frame.permute(2, 0, 1))
        return torch.where(found["mask"], found["depth"], torch.inf).to(frame.device)
