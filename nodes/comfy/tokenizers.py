"""A tokenizer from either socket, ours or ComfyUI's VAE, and what it has encoded before."""

from weakref import WeakKeyDictionary

from comfy.ldm.cosmos.vae import CausalContinuousVideoTokenizer
from torch import nn

from ...comfyui_lyra.configs import TOKENIZER_PRESETS, TokenizerConfig
from ...comfyui_lyra.recon.inputs import EncodeCache
from ...comfyui_lyra.tokenizer.model import CosmosTokenizer, load_autoencoder
from .patchers import Model, in_core

_of_vae: WeakKeyDictionary[nn.Module, Model] = WeakKeyDictionary()
_encoded: WeakKeyDictionary[nn.Module, EncodeCache] = WeakKeyDictionary()


def tokenizer_of(given) -> Model:
    """What a LYRA_TOKENIZER socket carries, or the same made of what a VAE socket does.

    ComfyUI's Cosmos VAE is the same network with the same weights. It runs through ours, because its own pass over a
    clip of 121 frames takes ten times the memory, and its ``encode`` clips and normalises, which Pluecker videos must
    not be.
    """
    if isinstance(given, Model):
        return given
    network = getattr(given, "first_stage_model", None)
    if not isinstance(network, CausalContinuousVideoTokenizer):
        raise ValueError(
            f"this VAE is {type(network).__name__}; Lyra's latents are those of Cosmos CV8x8x8: choose "
            "cosmos_cv8x8x8_1.0.safetensors in Load VAE, or use Load Tokenizer"
        )
    if network not in _of_vae:
        config = TOKENIZER_PRESETS["lyra"]
        tokenizer = from_core(network, config).to(given.vae_dtype)
        _of_vae[network] = Model(patcher=in_core(tokenizer), config=config, file="VAE")
    return _of_vae[network]


def from_core(network: CausalContinuousVideoTokenizer, config: TokenizerConfig) -> CosmosTokenizer:
    """Our tokenizer with the weights of ComfyUI's, which on the CPU they share."""
    state = {name: weight.cpu() for name, weight in network.state_dict().items()}
    mean, std = (state.pop(f"latent_{name}").float().view(config.latent_channels, -1) for name in ("mean", "std"))
    return CosmosTokenizer(config, load_autoencoder(config, state, "the VAE"), mean, std)


def encoded_by(tokenizer: Model) -> EncodeCache:
    """Camera and time pictures that a tokenizer has encoded before; from memory they go when it does."""
    return _encoded.setdefault(tokenizer.network, EncodeCache.lasting())
