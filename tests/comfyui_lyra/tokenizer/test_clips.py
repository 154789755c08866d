import pytest
import torch
from lyra_pack.comfyui_lyra.tokenizer.clips import decode_clip, encode_clip


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(1, 3, 17, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_latents_are_the_tokenizers_by_the_statistics_of_their_time(tiny, video):
    found = encode_clip(tiny, video)
    mean, std = (statistic[:, :3, None, None] for statistic in (tiny.mean, tiny.std))
    torch.testing.assert_close(found, 0.5 * (tiny.encode(video) - mean) / std)
    assert found.dtype == torch.float32


def test_the_first_latent_is_that_of_the_picture_alone(tiny, video):
    assert torch.equal(encode_clip(tiny, video)[:, :, :1], encode_clip(tiny, video[:, :, :1]))


def test_decoding_undoes_the_statistics(tiny, video):
    latents = encode_clip(tiny, video)
    torch.testing.assert_close(decode_clip(tiny, latents[0]), tiny.decode(tiny.encode(video))[0], rtol=1e-3, atol=1e-3)


def test_chunks_are_decoded_alone_and_share_a_frame(tiny, video):
    parts = [encode_clip(tiny, video[:, :, :9])[0], encode_clip(tiny, video[:, :, 8:])[0]]
    joined = decode_clip(tiny, torch.cat(parts, 1), chunks=2)
    assert joined.shape == (3, 17, 16, 32)
    first, second = (decode_clip(tiny, part) for part in parts)
    assert torch.equal(joined[:, :9], first) and torch.equal(joined[:, 9:], second[:, 1:])
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=f"4 latents do not hold {wrong} chunks"):
            decode_clip(tiny, torch.cat(parts, 1), chunks=wrong)


def test_a_clip_longer_than_the_statistics_is_refused(tiny, video):
    with pytest.raises(ValueError, match=r"cover 5 latent frames \(33 frames\), the clip has 6; use .* 33 frames"):
        decode_clip(tiny, torch.zeros(4, 6, 2, 2))
