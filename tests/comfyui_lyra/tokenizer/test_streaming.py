import copy
import weakref

import pytest
import torch
from lyra_pack.comfyui_lyra.configs import TokenizerConfig
from lyra_pack.comfyui_lyra.tokenizer import streaming
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder
from lyra_pack.comfyui_lyra.tokenizer.streaming import Past, decode_frames, encode_frames, latent_chunks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


def streamed(step, autoencoder, frames: Tensor, sizes: list[int]) -> Tensor:
    """``step`` over frames [N, ...] in chunks of the given sizes."""
    past = Past()
    return torch.cat([step(autoencoder, chunk, past) for chunk in frames.split(sizes)])


@pytest.mark.parametrize("latents", [[1], [1, 1], [1, 5], [1, 2, 2, 1], [1, 1, 3, 1], [1, 1, 1, 1, 1, 1]])
@torch.no_grad()
def test_any_chunks_give_the_result_of_the_whole_clip(tiny, latents):
    """The whole clip goes through diffusers' own forward pass."""
    frames = [1, *(8 * size for size in latents[1:])]
    video, raw = random(1, 3, sum(frames), 24, 40), random(1, 4, sum(latents), 3, 5)
    encoded = tiny.autoencoder.encode(video).latent_dist.mode()
    close(streamed(encode_frames, tiny.autoencoder, video[0].transpose(0, 1), frames).transpose(0, 1)[None], encoded)
    decoded = tiny.autoencoder.decode(raw).sample
    close(streamed(decode_frames, tiny.autoencoder, raw[0].transpose(0, 1), latents).transpose(0, 1)[None], decoded)


@torch.no_grad()
def test_attention_and_more_levels_outside_the_middle_are_streamed_too():
    """Four levels make diffusers attend at the innermost one as well."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TokenizerConfig(channels=4, multipliers=(1, 2, 2, 2), layers=1, latent_channels=4))
    assert autoencoder.encoder.down_blocks[3].attentions[0] is not None
    tokenizer = CosmosTokenizer(TokenizerConfig(latent_channels=4), autoencoder, torch.zeros(4, 1), torch.ones(4, 1))
    video = random(1, 3, 33, 16, 24)
    close(tokenizer.encode(video), autoencoder.encode(video).latent_dist.mode())
    latents = random(1, 4, 5, 2, 3)
    close(tokenizer.decode(latents), autoencoder.decode(latents).sample)


def test_a_longer_clip_begins_as_the_shorter_one(tiny):
    video, latents = random(1, 3, 41, 16, 16), random(1, 4, 6, 2, 2)
    assert torch.equal(tiny.encode(video)[:, :, :3], tiny.encode(video[:, :, :17]))
    assert torch.equal(tiny.decode(latents)[:, :, :17], tiny.decode(latents[:, :, :3]))


def test_videos_of_a_batch_do_not_mix(tiny):
    videos, latents = random(2, 3, 17, 16, 24), random(2, 4, 3, 2, 3)
    for i in range(2):
        assert torch.equal(tiny.encode(videos)[i], tiny.encode(videos[i : i + 1])[0])
        assert torch.equal(tiny.decode(latents)[i], tiny.decode(latents[i : i + 1])[0])


def test_values_are_not_clamped(tiny):
    video = 30 * random(1, 3, 9, 16, 16)
    assert not torch.allclose(tiny.encode(video), tiny.encode(video.clamp(-1, 1)), atol=0.1)


def test_blocks_of_queries_give_the_result_of_all_at_once(tiny, monkeypatch):
    video = random(1, 3, 17, 40, 56)  # 35 tokens a frame
    whole = tiny.encode(video)
    monkeypatch.setattr(streaming, "MAX_SCORES", 35 * 8)
    close(tiny.encode(video), whole)


@pytest.mark.parametrize("latents", [1, 2, 6])
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_cover_latents_and_frames_once(latents, chunk):
    parts = list(latent_chunks(latents, chunk))
    assert [i for some, _ in parts for i in range(some.start, some.stop)] == list(range(latents))
    assert [i for _, frames in parts for i in range(frames.start, frames.stop)] == list(range(8 * latents - 7))
    assert all(some.stop - some.start <= chunk for some, _ in parts)
    assert parts[0] == (slice(0, 1), slice(0, 1))


def test_bfloat16_weights_work_and_are_close(tiny):
    half = CosmosTokenizer(tiny.config, copy.deepcopy(tiny.autoencoder), tiny.mean, tiny.std).bfloat16()
    video, latents = random(1, 3, 17, 24, 40), random(1, 4, 3, 3, 5)
    for found, expected in (
        (half.encode(video), tiny.encode(video)),
        (half.decode(latents), tiny.decode(latents)),
    ):
        assert found.dtype == torch.bfloat16
        assert (found - expected).square().mean() < (0.03 * expected.std()) ** 2  # some forty layers of 2**-9 each


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.known, self.live, self.peak = weakref.WeakSet(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in before and storage not in self.known:
                self.known.add(storage)
                weakref.finalize(storage, self.forget, storage.nbytes())
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
        return result

    def forget(self, size: int) -> None:
        self.live -= size


def peak(run, *args) -> int:
    with PeakBytes() as counter:
        run(*args)
    return counter.peak


@torch.no_grad()
def test_memory_grows_by_results_and_temporal_keys_only(tiny):
    def clip(latents: int) -> tuple[Tensor, Tensor]:
        return random(1, 3, 8 * latents - 7, 16, 24), random(1, 4, latents, 2, 3)

    (video, latents), (long_video, long_latents) = clip(5), clip(13)
    cells = 4 * 2 * 3  # bytes of one channel of a latent frame
    keys = 2 * 24 * cells  # keys and values of the middle block a latent frame
    copied = 2  # keys and values exist twice while the next are appended
    growth = peak(tiny.encode, long_video) - peak(tiny.encode, video)
    assert growth <= 8 * (copied * keys + 4 * cells)
    growth = peak(tiny.decode, long_latents) - peak(tiny.decode, latents)
    assert growth <= 8 * (copied * keys + 8 * 3 * 64 * cells)
    whole = peak(tiny.autoencoder.encode, long_video)
    assert peak(tiny.encode, long_video) < whole / 3
