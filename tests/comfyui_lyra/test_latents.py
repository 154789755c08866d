import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents


def statistics() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(16, 3, generator=g), torch.rand(16, 3, generator=g) + 0.5


def test_the_two_spaces_are_inverse_and_cannot_be_mixed():
    mean, std = statistics()
    raw = VideoLatents(values=torch.randn(2, 16, 3, 4, 6), space="tokenizer")
    diffusion = raw.to_diffusion(mean, std)
    assert torch.allclose(diffusion.to_tokenizer(mean, std).values, raw.values, atol=1e-5)
    with pytest.raises(ValueError, match="in tokenizer space already"):
        raw.to_tokenizer(mean, std)
    with pytest.raises(ValueError, match="in diffusion space already"):
        diffusion.to_diffusion(mean, std)


def test_diffusion_latents_have_half_unit_deviation():
    mean, std = statistics()
    raw = mean[..., None, None] + std[..., None, None] * torch.randn(1, 16, 3, 64, 64)
    values = VideoLatents(values=raw, space="tokenizer").to_diffusion(mean, std).values
    assert values.std() == pytest.approx(0.5, abs=0.01)


def test_statistics_of_another_clip_length_are_refused():
    mean, std = statistics()
    with pytest.raises(ValueError, match=r"expected \[C T\] = \(16, 5\), got \(16, 3\)"):
        VideoLatents(values=torch.zeros(1, 16, 5, 4, 6)).to_tokenizer(mean, std)


def test_each_view_needs_its_camera_path():
    camera = CameraTrajectory(c2w=torch.eye(4)[None], K=torch.eye(3)[None], height=32, width=48)
    with pytest.raises(ValueError, match="2 views of latents, 1 camera paths"):
        MultiViewLatents(latents=VideoLatents(values=torch.zeros(2, 16, 1, 4, 6)), cameras=(camera,), family="mini")


def long_video(latents: int, frames: int) -> MultiViewLatents:
    camera = CameraTrajectory(
        c2w=torch.arange(frames)[:, None, None] * torch.ones(4, 4),
        K=torch.eye(3).repeat(frames, 1, 1),
        height=32,
        width=48,
    )
    values = torch.arange(latents)[:, None, None] * torch.ones(2, 16, latents, 4, 6)
    return MultiViewLatents(latents=VideoLatents(values=values), cameras=(camera, camera), family="mini")


def test_a_long_video_is_clips_that_share_a_frame():
    assert long_video(16, 121).chunks == 1 and long_video(1, 1).chunks == 1
    joined = long_video(48, 361)
    assert joined.chunks == 3
    last = joined.chunk(2)
    assert (last.chunks, last.latents.values.shape) == (1, (2, 16, 16, 4, 6))
    assert last.latents.values[0, 0, :, 0, 0].tolist() == list(range(32, 48))
    assert [path.c2w[:, 0, 0].tolist() for path in last.cameras] == [list(range(240, 361))] * 2
    with pytest.raises(ValueError, match="chunk 3 of 48 latents for 361 frames: they hold 3 chunks"):
        joined.chunk(3)
    with pytest.raises(ValueError, match="chunk 0 of 16 latents for 361 frames: they hold 0 chunks"):
        long_video(16, 361).chunk(0)
