"""Our networks in ComfyUI's hands: a ModelPatcher each, and layers whose weights ComfyUI can fetch while they run."""

from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...comfyui_lyra.configs import ReconConfig, TeacherConfig, TokenizerConfig

CASTABLE = (
    "Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
    "GroupNorm", "LayerNorm", "RMSNorm", "Embedding",
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """What a model's socket carries: a network in a ModelPatcher, and what its file says of it."""

    patcher: ModelPatcher
    config: ReconConfig | TeacherConfig | TokenizerConfig
    file: str
    licence: str = ""

    @property
    def network(self) -> nn.Module:
        """The network, wherever ComfyUI keeps it; ``load`` it before use."""
        return self.patcher.model

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the network runs in."""
        return next(self.network.parameters()).dtype


class Whole(ModelPatcher):
    """Loads all of a network or nothing of it.

    For the small ones: they read the weights of some layers without running them, which streaming cannot serve.
    """

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        """Load everything, however little memory was offered."""
        return super().partially_load(device_to, 1e32, force_patch_weights)

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
        """Free nothing: whoever needs the room unloads the whole."""
        return 0


def in_core(network: nn.Module) -> ModelPatcher:
    """A patcher of a network that is loaded whole, with castable layers."""
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return Whole(castable(network.eval()), load_device=device, offload_device=offload)


def castable(network: nn.Module) -> nn.Module:
    """Make torch's own layers those of ``comfy.ops.manual_cast``: same weights under the same names, same results.

    They fetch their weights when they run, from wherever ComfyUI keeps them, and notice a cancelled run.
    """
    kinds = {getattr(nn, name): getattr(comfy.ops.manual_cast, name, None) for name in CASTABLE if hasattr(nn, name)}
    for layer in network.modules():
        if kind := kinds.get(type(layer)):
            layer.__class__ = kind
            if "bias" not in layer._parameters:  # RMSNorm and Embedding have none, and ComfyUI looks for one
                layer.bias = None
    return network
