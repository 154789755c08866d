"""The tokenizer a few frames at a time, with the result of the whole clip.

Nothing in the network looks ahead in time. So each layer keeps the last frames it has seen in ``past`` (the temporal
convolutions two, the temporal attention its keys and values) and the next frames continue from there. Frames are the
batch, x [T B, C, H, W], the B clips of a moment side by side, and channels lie last in memory. That makes every
convolution of the network a 2D one: its kernels are 1 x 3 x 3 (over pictures), 3 x 1 x 1 (over a grid of T rows and
B H W columns) and 1 x 1 x 1.
The modules are those of diffusers' AutoencoderKLCosmos; only their order of execution is ours.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..configs import COMPRESSION

HAAR_LEVELS = 2  # a patch is 4 x 4 pixels of 4 frames
CHUNK = 2  # latents at a time: 3 GB at 704x1280 in bfloat16, most of it in the decoder's last level
MAX_SCORES = 2**27  # attention scores at a time; where no fused kernel runs they take 0.5 GB in float32


class Past(dict[nn.Module, Tensor]):
    """What each layer keeps of the frames before, of clips that are worked on together."""

    def __init__(self, clips: int = 1):
        super().__init__()
        self.clips = clips


def latent_chunks(latents: int, chunk: int = CHUNK) -> Iterator[tuple[slice, slice]]:
    """Slices of latents and of the frames they stand for: the first alone, then ``chunk`` at a time.

    Latent 0 is frame 0; latent i > 0 is frames 8i - 7 to 8i. The first goes alone so that it comes out bit for bit
    the same whatever follows.
    """
    for start in [0, *range(1, latents, chunk)]:
        stop = min(start + chunk, latents) if start else 1
        yield slice(start, stop), slice(max(0, COMPRESSION * (start - 1) + 1), COMPRESSION * (stop - 1) + 1)


def encode_frames(autoencoder: nn.Module, frames: Tensor, past: Past) -> Tensor:
    """Raw latents [T B, C, h, w] of the next frames [F B, 3, H, W]: 8 n + 1 at first (one, or all), then 8 n."""
    encoder, weight = autoencoder.encoder, autoencoder.quant_conv.weight
    if not past:
        # the first frame of a clip is a patch of its own
        frames = torch.cat((frames[: past.clips],) * (2**HAAR_LEVELS - 1) + (frames,))
    x = haar(frames.unflatten(0, (-1, past.clips)).float()).flatten(0, 1).to(weight.dtype)
    x = convolve_twice(encoder.conv_in, x, past)
    for block in encoder.down_blocks:
        for layers in zip(block.resnets, block.attentions, block.temp_attentions, strict=True):
            x = resnet_and_attention(*layers, x, past)
        for sampler in block.downsamplers or ():
            x = downsample(sampler, x, past)
    x = middle(encoder.mid_block, x, past)
    x = convolve_twice(encoder.conv_out, activate(encoder.norm_out, x), past)
    return convolve(autoencoder.quant_conv, x, past)


def decode_frames(autoencoder: nn.Module, latents: Tensor, past: Past) -> Tensor:
    """The frames [F B, 3, H, W] of the next raw latents [T B, C, h, w], any number of them."""
    decoder, weight, first = autoencoder.decoder, autoencoder.post_quant_conv.weight, not past
    x = convolve(autoencoder.post_quant_conv, latents.to(weight.dtype), past)
    x = convolve_twice(decoder.conv_in, x, past)
    x = middle(decoder.mid_block, x, past)
    for block in decoder.up_blocks:
        for layers in zip(block.resnets, block.attentions, block.temp_attentions, strict=True):
            x = resnet_and_attention(*layers, x, past)
        for sampler in block.upsamplers or ():
            x = upsample(sampler, x, past)
    x = convolve_twice(decoder.conv_out, activate(decoder.norm_out, x), past)
    frames = inverse_haar(x.unflatten(0, (-1, past.clips)).float()).flatten(0, 1).to(weight.dtype)
    return frames[(2**HAAR_LEVELS - 1) * past.clips :] if first else frames


def haar(x: Tensor, levels: int = HAAR_LEVELS) -> Tensor:
    """Haar wavelets of [T, ..., C, H, W]: a level halves T, H, W and makes 8 C channels, mean first, width fastest."""
    for _ in range(levels):
        bands = [x]
        for axis in (0, x.ndim - 2, x.ndim - 1):
            pairs = [band.unflatten(axis, (band.shape[axis] // 2, 2)).unbind(axis + 1) for band in bands]
            bands = [band for even, odd in pairs for band in (even + odd, even - odd)]
        x = torch.cat(bands, dim=-3) / 8
    return x


def inverse_haar(x: Tensor, levels: int = HAAR_LEVELS) -> Tensor:
    """The [T, ..., C, H, W] whose ``haar`` is x."""
    for _ in range(levels):
        bands = x.chunk(8, dim=-3)
        for axis in (x.ndim - 1, x.ndim - 2, 0):
            pairs = zip(bands[::2], bands[1::2], strict=True)
            bands = [torch.stack((low + high, low - high), axis + 1).flatten(axis, axis + 1) for low, high in pairs]
        (x,) = bands
    return x


def convolve(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Causal convolution; before the first frame stand copies of it, around the picture stand zeros."""
    clips = past.clips
    if layer.temporal_pad:
        before = past[layer] if layer in past else x[:clips].repeat(layer.temporal_pad, 1, 1, 1)
        x = torch.cat((before, x))
        past[layer] = x[-layer.temporal_pad * clips :].clone()
    x = x.contiguous(memory_format=torch.channels_last)
    if layer.kernel_size[0] == 1:
        return F.conv2d(x, layer.weight[:, :, 0], layer.bias, layer.stride[1:], layer.spatial_pad[0])
    height, width = x.shape[2:]
    grid = x.permute(0, 2, 3, 1).reshape(1, -1, clips * height * width, x.shape[1])  # a view: [1, T, B H W, C]
    grid = F.conv2d(grid.permute(0, 3, 1, 2), layer.weight[..., 0], layer.bias, layer.stride[:2])
    return rearrange(grid, "1 c t (b h w) -> (t b) c h w", b=clips, h=height)


def convolve_twice(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """A 3 x 3 x 3 convolution in two factors: over the picture, then over time."""
    return convolve(layer.conv_t, convolve(layer.conv_s, x, past), past)


def normalise(layer: nn.Module, x: Tensor) -> Tensor:
    """Group norm with one group a frame, in float32."""
    var, mean = torch.var_mean(x.float(), dim=(1, 2, 3), correction=0, keepdim=True)
    scale = layer.norm.weight[:, None, None].float() * torch.rsqrt(var + layer.norm.eps)  # [T, C, 1, 1]
    return torch.addcmul(layer.norm.bias[:, None, None].float() - mean * scale, x, scale)


def activate(norm: nn.Module, x: Tensor) -> Tensor:
    """Group norm and SiLU."""
    return F.silu(normalise(norm, x), inplace=True).to(x.dtype)


def resnet(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Residual block."""
    h = convolve_twice(layer.conv1, activate(layer.norm1, x), past)
    h = convolve_twice(layer.conv2, activate(layer.norm2, h), past)
    return h + (x if isinstance(layer.conv_shortcut, nn.Identity) else convolve(layer.conv_shortcut, x, past))


def resnet_and_attention(block: nn.Module, spatial: nn.Module, temporal: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Residual block, then attention within each frame and over time where the network has it."""
    x = resnet(block, x, past)
    x = x if spatial is None else spatial_attention(spatial, x, past)
    return x if temporal is None else temporal_attention(temporal, x, past)


def middle(block: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Residual block, attention within each frame, attention over time, residual block."""
    x = resnet(block.resnets[0], x, past)
    for spatial, temporal, last in zip(block.attentions, block.temp_attentions, block.resnets[1:], strict=True):
        x = temporal_attention(temporal, spatial_attention(spatial, x, past), past)
        x = resnet(last, x, past)
    return x


def spatial_attention(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Single-head attention of each frame's positions to one another, some frames or a block of queries at a time."""
    h = normalise(layer.norm, x).to(x.dtype)
    q, k, v = (
        rearrange(convolve(project, h, past), "n c h w -> n 1 (h w) c")
        for project in (layer.to_q, layer.to_k, layer.to_v)
    )
    scores = q.shape[2] ** 2
    blocks, frames = -(-scores // MAX_SCORES), max(1, MAX_SCORES // scores)  # the former rounded up
    h = torch.cat([
        torch.cat([
            F.scaled_dot_product_attention(queries, keys, values) for queries in some.chunk(blocks, dim=2)
        ], dim=2)
        for some, keys, values in zip(q.split(frames), k.split(frames), v.split(frames), strict=True)
    ])  # fmt: skip
    h = rearrange(h, "n 1 (h w) c -> n c h w", h=x.shape[2])
    return x + convolve(layer.to_out[0], h, past)


def temporal_attention(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Single-head attention of each position to itself in this frame and in those before."""
    h = normalise(layer.norm, x).to(x.dtype)
    for project in (layer.to_k, layer.to_v):
        new = convolve(project, h, past)
        past[project] = torch.cat((past[project], new)) if project in past else new
    q, k, v = (
        rearrange(frames, "(t b) c h w -> (b h w) 1 t c", b=past.clips)
        for frames in (convolve(layer.to_q, h, past), past[layer.to_k], past[layer.to_v])
    )
    new, known = q.shape[2], k.shape[2]
    causal = torch.ones(new, known, dtype=torch.bool, device=x.device).tril(known - new)
    h = F.scaled_dot_product_attention(q, k, v, attn_mask=causal)
    h = rearrange(h, "(b h w) 1 t c -> (t b) c h w", b=past.clips, h=x.shape[2])
    return x + convolve(layer.to_out[0], h, past)


def downsample(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Halve the picture, then the frames: strided convolution plus average."""
    if layer.spatial_downsample:
        x = F.pad(x, (0, 1, 0, 1))
        x = convolve(layer.conv1, x, past) + F.avg_pool2d(x, 2)
    if layer.temporal_downsample:
        # the first frame of a clip is a pair of its own
        x = x if layer.conv2 in past else torch.cat((x[: past.clips], x))
        even, odd = x.unflatten(0, (-1, 2, past.clips)).unbind(1)
        x = convolve(layer.conv2, x, past) + (even + odd).flatten(0, 1) / 2
    return convolve(layer.conv3, x, past) if isinstance(layer.conv3, nn.Conv3d) else x


def upsample(layer: nn.Module, x: Tensor, past: Past) -> Tensor:
    """Double the frames, then the picture: convolution plus repetition."""
    if layer.temporal_upsample:
        first, pairs = layer.conv1 not in past, x.unflatten(0, (-1, past.clips))
        pairs = torch.stack((pairs, pairs), 1).flatten(0, 2)
        x = pairs[past.clips * first :]  # the first frame of a clip stays one
        x = convolve(layer.conv1, x, past) + x
    if layer.spatial_upsample:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = convolve(layer.conv2, x, past) + x
    return convolve(layer.conv3, x, past) if isinstance(layer.conv3, nn.Conv3d) else x
