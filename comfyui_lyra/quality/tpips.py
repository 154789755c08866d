"""The frozen tokenizer's encoder as a judge of pictures: what TPIPS compares (training.md 13.4)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..tokenizer.model import CosmosTokenizer
from ..tokenizer.streaming import HAAR_LEVELS, Past, convolve_twice, downsample, haar, resnet_and_attention
from .perceptual import Tpips


def tokenizer_tpips(tokenizer: CosmosTokenizer) -> Tpips:
    """TPIPS on a tokenizer, whose weights must need no gradient."""
    return Tpips(partial(activations, tokenizer.autoencoder))


def activations(autoencoder: Any, pictures: Tensor) -> list[Tensor]:
    """What comes out of each level of the encoder for pictures [I, 3, H, W] in [-1, 1], each a clip of its own."""
    encoder, past, found = autoencoder.encoder, Past(len(pictures)), []
    frames = torch.stack((pictures,) * 2**HAAR_LEVELS)  # the first frame of a clip is a patch of its own
    x = haar(frames.float()).flatten(0, 1).to(autoencoder.quant_conv.weight.dtype)
    x = convolve_twice(encoder.conv_in, x, past)
    for block in encoder.down_blocks:
        for layers in zip(block.resnets, block.attentions, block.temp_attentions, strict=True):
            x = resnet_and_attention(*layers, x, past)
        found.append(x)
        for sampler in block.downsamplers or ():
            x = downsample(sampler, x, past)
    return found
