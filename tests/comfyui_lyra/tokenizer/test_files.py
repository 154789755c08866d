"""The tokenizer from each form of its files, as NVIDIA, ComfyUI and diffusers publish them."""

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.released.sniff import sniff
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, load_tokenizer
from lyra_pack.comfyui_lyra.weights import load as weights
from safetensors.torch import save_file
from torch import nn

BACKWARDS = (
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."), (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1.0."), (r"\.mid_block\.temp_attentions\.0\.", ".mid.attn_1.1."),
    (r"\.down_blocks\.", ".down."), (r"\.up_blocks\.0\.", ".up.-2."), (r"\.up_blocks\.2\.", ".up.0."),
    (r"\.up_blocks\.1\.", ".up.1."), (r"\.up\.-2\.", ".up.2."), (r"\.resnets\.", ".block."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."), (r"\.to_([qkv])\.", r".\1.conv3d."),
    (r"\.to_out\.0\.", ".proj_out.conv3d."), (r"\.conv_s\.", ".0.conv3d."), (r"\.conv_t\.", ".1.conv3d."),
    (r"\.conv_shortcut\.", ".nin_shortcut.conv3d."), (r"(sample\.conv\d|quant_conv)\.", r"\1.conv3d."),
)  # fmt: skip


class Tree(nn.Module):
    """Tensors under dotted names, as modules that TorchScript can hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


MADE: dict[frozenset, bytes] = {}  # tracing takes a second


def traced(state: dict[str, torch.Tensor], file: Path) -> Path:
    names = frozenset(state)
    if names not in MADE:
        trace(state, file)
        MADE[names] = file.read_bytes()
    file.write_bytes(MADE[names])
    return file


def trace(state: dict[str, torch.Tensor], file: Path) -> None:
    root = Tree()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Tree())
            module = getattr(module, parent)
        module.register_buffer(leaf, tensor)
    torch.jit.trace(root, torch.zeros(1)).save(file)


class Release:
    """A tokenizer's weights in NVIDIA's names, and the folder where a form is written."""

    def __init__(self, folder: Path, tokenizer: CosmosTokenizer):
        self.folder, self.ours = folder, tokenizer.autoencoder.state_dict()
        self.pair = tokenizer.mean.flatten(), tokenizer.std.flatten()
        self.state = {}
        for name, tensor in self.ours.items():
            for pattern, replacement in BACKWARDS:
                name = re.sub(pattern, replacement, name)
            self.state[name] = tensor
        wavelets = torch.ones(2)
        self.state |= {"encoder.patcher3d.wavelets": wavelets, "decoder.unpatcher3d.wavelets": wavelets,
                       "encoder.patcher3d._arange": torch.arange(2)}  # fmt: skip

    def half(self, which: str) -> dict[str, torch.Tensor]:
        places = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}[which]
        return {name: tensor for name, tensor in self.state.items() if name.startswith(places)}

    def statistics(self) -> None:
        torch.save(self.pair, self.folder / "mean_std.pt")

    def training(self) -> Path:
        """model.pt as it is: the network, its running average under names with "-", and all of the training."""
        self.statistics()
        ema = {f"ema.network-{n.replace('.', '-')}": torch.zeros_like(t) for n, t in self.state.items()}
        model = {f"network.{n}": t for n, t in self.state.items()} | ema | {"loss.lpips.net.0.weight": torch.ones(1)}
        torch.save({
            "model": model, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
            "scheduler": argparse.Namespace(last=3), "grad_scaler": {"scale": 65536.0}, "iteration": 1000,
        }, self.folder / "model.pt")  # fmt: skip
        return self.folder / "model.pt"

    def pair_of_jit(self) -> Path:
        self.statistics()
        traced(self.half("decoder"), self.folder / "decoder.jit")
        return traced(self.half("encoder"), self.folder / "encoder.jit")

    def whole_jit(self) -> Path:
        self.statistics()
        return traced(self.state, self.folder / "autoencoder.jit")

    def everything(self) -> Path:
        self.training(), self.pair_of_jit(), self.whole_jit()
        shutil.copy(self.folder / "mean_std.pt", self.folder / "image_mean_std.pt")
        (self.folder / "config.json").write_text('{"architectures": ["CosmosTokenizer"]}')
        return self.folder

    def comfyui(self, prefix: str = "") -> Path:
        state = self.state | dict(zip(("latent_mean", "latent_std"), self.pair, strict=True))
        content = {prefix + name: tensor.clone() for name, tensor in state.items()}
        save_file(content, self.folder / "cosmos_cv8x8x8_1.0.safetensors")
        return self.folder / "cosmos_cv8x8x8_1.0.safetensors"

    def diffusers(self) -> Path:
        (self.folder / "vae").mkdir()
        save_file(dict(self.ours), self.folder / "vae" / "diffusion_pytorch_model.safetensors")
        about = {"latents_mean": self.pair[0].tolist(), "latents_std": self.pair[1].tolist()}
        (self.folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLCosmos"} | about))
        return self.folder


FORMS = {
    "model.pt, a training's checkpoint": Release.training,
    "encoder.jit with decoder.jit": Release.pair_of_jit,
    "decoder.jit with encoder.jit": lambda r: r.pair_of_jit().with_name("decoder.jit"),
    "folder of encoder.jit and decoder.jit": lambda r: r.pair_of_jit().parent,
    "autoencoder.jit": Release.whole_jit,
    "NVIDIA's folder": Release.everything,
    "ComfyUI's file": Release.comfyui,
    "ComfyUI's file in a checkpoint": lambda r: r.comfyui("vae."),
    "diffusers' folder": Release.diffusers,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tokenizer(tiny, tmp_path, monkeypatch, form):
    chosen = FORMS[form](Release(tmp_path, tiny))
    for name in ("load", "jit.load"):  # nothing is run
        monkeypatch.setattr(f"torch.{name}", None)
    found = load_tokenizer(chosen, config=tiny.config)
    assert found.identity == tiny.identity  # weights and statistics to the last bit
    assert sniff(chosen).loader == "tokenizer"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_half_is_called_a_half(tiny, tmp_path):
    chosen = Release(tmp_path, tiny).pair_of_jit()
    assert "only its encoder, the decoder belongs beside it" in sniff(chosen).text
    assert "TorchScript" in sniff(chosen).text and sniff(tmp_path / "mean_std.pt").kind == "statistics"
    (tmp_path / "decoder.jit").unlink()
    with pytest.raises(FileNotFoundError, match="encoder.jit is half of the tokenizer; decoder.jit belongs beside it"):
        load_tokenizer(chosen, config=tiny.config)


def test_a_fingerprint_is_computed_once_and_again_when_a_file_changes(tiny, tmp_path, monkeypatch):
    release = Release(tmp_path, tiny)
    chosen = release.training()
    first = load_tokenizer(chosen, config=tiny.config)
    shown = []
    monkeypatch.setattr(weights.Fingerprint, "add", lambda self, name, value: shown.append(name))
    assert load_tokenizer(chosen, config=tiny.config).identity == first.identity and not shown
    release.pair = release.pair[0] + 1, release.pair[1]
    release.statistics()
    assert load_tokenizer(chosen, config=tiny.config).identity != first.identity and "mean" in shown
