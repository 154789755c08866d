import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder

TINY = TokenizerConfig(family="tiny", channels=8, multipliers=(1, 2, 3), layers=1, latent_channels=4)


@pytest.fixture(scope="session")
def tiny() -> CosmosTokenizer:
    """A tokenizer of random weights whose biases and norms matter too."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return CosmosTokenizer(TINY, autoencoder, torch.randn(4, 5), torch.rand(4, 5) + 0.5)
