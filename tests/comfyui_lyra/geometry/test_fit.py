import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.geometry.fit import (
    REFERENCE_SIZE,
    aimed,
    condition_frame,
    crop_as_reference,
    fit,
    fitted,
    meant_for,
    resize_as_reference,
)
from lyra_pack.comfyui_lyra.geometry.geometry import Fitting, Geometry, unproject
from lyra_pack.comfyui_lyra.sources.geometry import from_moge
from PIL import Image
from torch.nn.functional import interpolate


def shown_to_moge(rgb: torch.Tensor) -> torch.Tensor:
    """Bytes [H, W, 3] as the reference resizes them, whatever their shape: [720, 1280, 3] in [0, 1]."""
    resized = interpolate(rgb.float().permute(2, 0, 1)[None], REFERENCE_SIZE, mode="bilinear")
    return resized[0].permute(1, 2, 0).round() / 255


def fake_moge(formula: str, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the golden's stand-in for MoGe finds in a picture [H, W, 3]; its JSON gives the formulas."""
    number = r"([\d.]+)"
    base, dv, dc = map(float, re.search(rf"depth = {number}\+u\+{number}v\+{number}\*mean_rgb", formula).groups())
    u0, v0, radius = map(
        float, re.search(rf"mask = \(u-{number}\)\^2\+\(v-{number}\)\^2 < {number};", formula).groups()
    )
    K = json.loads(re.sub(r"(?<![\d])\.", "0.", re.search(r"K_norm = (\[\[.*\]\])", formula).group(1)))
    height, width = picture.shape[:2]
    v, u = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    mask = (u - u0) ** 2 + (v - v0) ** 2 < radius
    depth = torch.where(mask, base + u + dv * v + dc * picture.mean(-1), torch.inf)
    return {"depth": depth[None], "mask": mask[None], "intrinsics": torch.tensor([K])}


@pytest.mark.golden("teacher/preprocess")
def test_a_picture_is_prepared_as_in_the_reference(golden):
    file = golden.other("preprocess_input.png").path
    rgb = torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    assert torch.equal(rgb, golden["input_rgb_u8"].to(torch.uint8))
    assert list(rgb.shape[:2]) == golden.meta["source_hw"]
    height, width = golden.meta["target_hw"]
    picture = shown_to_moge(rgb)
    shown = golden["resized_720x1280_sub16"]
    step = picture.shape[0] // shown.shape[1]
    assert (picture[::step, ::step].movedim(-1, 0) - shown).abs().max() <= 1.01 / 255  # OpenCV rounds otherwise
    geometry = from_moge(picture[None], fake_moge(golden.meta["fake_moge"], picture), scale="as_is")
    found = fit(geometry, height, width, "reference")
    assert torch.allclose(condition_frame(found)[:, None, :, 0], golden["cache_image"], atol=0.009)
    assert torch.allclose(found.depth, golden["depth"][0, 0], atol=1e-3)
    assert torch.equal(found.valid.float(), golden["mask"][0, 0])
    assert torch.allclose(found.cameras.viewmats, golden["w2c"][0], atol=1e-6)
    assert torch.allclose(found.cameras.K, golden["K"][0], atol=1e-4)


def wall(height: int, width: int, frames: int = 1) -> Geometry:
    """A slanted wall painted with its own pixel numbers."""
    camera = pinhole_camera(width, height, 50)
    v, u = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    depth = (1 + u + 0.5 * v).expand(frames, -1, -1).clone()
    return Geometry(
        frames=torch.stack([u, v, torch.zeros_like(u)], -1).expand(frames, -1, -1, -1),
        depth=depth,
        valid=torch.ones_like(depth, dtype=torch.bool),
        cameras=replace(camera, c2w=camera.c2w.repeat(frames, 1, 1), K=camera.K.repeat(frames, 1, 1)),
    )


@pytest.mark.parametrize(("how", "frames"), [("crop", 1), ("crop", 2), ("reference", 1), ("reference", 2)])
@pytest.mark.parametrize("size", [(40, 70), (50, 40), (176, 320)])
def test_fitting_keeps_every_point_where_it_was(how, frames, size):
    before = wall(90, 120, frames)
    after = fit(before, *size, how)
    assert after.frames.shape == (frames, *size, 3)
    assert (after.cameras.height, after.cameras.width) == size
    points = [unproject(g.depth, g.cameras.K, g.cameras.c2w) for g in (before, after)]
    # the paint names the pixel a point came from; K counts from pixel 0, pictures from its corner: half a pixel
    column, row = (after.frames[..., i] * n for i, n in ((0, 120), (1, 90)))
    inside = (slice(None), slice(3, -3), slice(3, -3))
    source = points[0][0][row.round().long(), column.round().long()]
    assert (points[1][inside] - source[inside]).abs().max() < 0.06


@pytest.mark.parametrize("size", [(33, 47), (130, 190)])
def test_a_crop_lets_neither_background_nor_holes_bleed(size):
    geometry = wall(60, 90)
    depth, valid = torch.full_like(geometry.depth, 2.0), geometry.valid.clone()
    depth[:, :20], valid[:, :20] = torch.inf, False
    depth[:, :, 70:], valid[:, :, 70:] = 0, False
    found = fit(replace(geometry, depth=depth, valid=valid), *size)
    assert torch.allclose(found.depth[found.valid], torch.tensor(2.0))
    assert found.depth[~found.valid].unique().tolist() == [0, torch.inf]
    assert found.valid.any()
    hidden = replace(geometry, depth=depth, valid=valid & False)  # a mask that leaves nothing
    assert not fit(hidden, *size).valid.any()
    assert not fit(hidden, *size).depth.isnan().any()
    bleeding = resize_as_reference(replace(geometry, depth=depth, valid=valid), *size)
    assert bleeding.depth.max() == pytest.approx(1000)
    assert ((bleeding.depth > 2) & (bleeding.depth < 999)).any()


def test_a_clip_of_the_references_size_is_only_cropped():
    clip = wall(90, 160, frames=2)  # 720 x 1280 in small
    for how in ("crop", "reference"):
        found = fit(clip, 88, 160, how)
        assert torch.allclose(found.frames, clip.frames[:, 1:-1], atol=1e-6)
        assert torch.allclose(found.cameras.K[:, 1, 2], clip.cameras.K[:, 1, 2] - 1)
    assert fit(clip, 90, 160) is clip


EACH = pytest.mark.parametrize(("how", "frames"), [("crop", 1), ("crop", 2), ("reference", 1), ("reference", 2)])


@EACH
def test_a_geometry_is_fitted_once_whatever_size_it_is_meant_for(how, frames):
    own = wall(90, 120, frames)
    expected = fit(own, 40, 70, how)
    for size in ((176, 320), (50, 40), (40, 70), (90, 120)):
        meant = meant_for(own, *size, how)
        path = replace(aimed(meant), name="left")
        assert (path.height, path.width) == size and meant.frames is own.frames
        found, (left,) = fitted(meant, (path,), 40, 70)
        assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("frames", "depth", "valid"))
        assert torch.equal(found.cameras.K, expected.cameras.K) and found.fitting is None
        torch.testing.assert_close(left.K, expected.cameras.K, rtol=1e-5, atol=1e-4)
        assert (left.height, left.width, left.name) == (40, 70, "left")
        if size == (40, 70):  # the usual case: nothing is computed twice
            assert left is path


@EACH
def test_a_path_with_a_lens_of_its_own_keeps_its_view(how, frames):
    meant = meant_for(wall(90, 120, frames), 176, 320, how)
    own, wide = (replace(c, K=c.K * torch.tensor([[0.5], [0.5], [1.0]])) for c in (meant.cameras, aimed(meant)))
    own.K[:, :2, 2], wide.K[:, :2, 2] = meant.cameras.K[:, :2, 2], aimed(meant).K[:, :2, 2]
    _, (by_own, by_aim) = fitted(meant, (own, wide), 40, 70)
    torch.testing.assert_close(by_aim.K, by_own.K, rtol=1e-5, atol=1e-4)


def test_a_clip_too_large_to_wait_is_fitted_at_once_and_never_enlarged(monkeypatch):
    clip, picture = wall(90, 120, 3), wall(90, 120, 1)
    monkeypatch.setattr("lyra_pack.comfyui_lyra.geometry.fit.LARGEST_CLIP", 1000)
    assert meant_for(clip, 40, 70).size == (40, 70)
    assert meant_for(clip, 176, 320).size == (90, 120) == meant_for(picture, 40, 70).size


@EACH
def test_many_frames_are_fitted_some_at_a_time(how, frames, monkeypatch):
    clip = wall(90, 120, frames + 2)
    whole = fit(clip, 40, 70, how)
    monkeypatch.setattr("lyra_pack.comfyui_lyra.geometry.fit.AT_ONCE", 90 * 120)
    parts = fit(clip, 40, 70, how)
    for name in ("frames", "depth", "valid"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-6)
    assert torch.equal(parts.cameras.K, whole.cameras.K) and len(parts.cameras) == frames + 2
    part = fit(clip[:1], 40, 70, how, is_clip=True)
    torch.testing.assert_close(part.frames, whole.frames[:1], rtol=0, atol=1e-6)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no pictures of 0x44: sizes must be positive"):
        Fitting(44, 0)
    with pytest.raises(ValueError, match="no 9x91 part of 120x90 pictures"):
        crop_as_reference(wall(90, 120), 91, 9)
    with pytest.raises(ValueError, match="'squash' is neither 'crop' nor 'reference'"):
        fit(wall(9, 12), 8, 8, "squash")


@pytest.mark.parametrize(
    ("size", "how", "message"),
    [
        ((200, 150), "crop", "150x200 for a model of 80x44: 59 % is cut away, at top and bottom; the middle 150x82"),
        ((44, 240), "crop", "240x44 for a model of 80x44: 67 % is cut away, at left and right; the middle 80x44"),
        ((200, 150), "reference", "pictures of 150x200 for a model of 80x44: they are squashed by a factor of 2.44"),
        ((90, 160), "crop", ""),
        ((90, 160), "reference", ""),
        ((44, 80), "crop", ""),
    ],
)
def test_much_that_is_cut_or_squashed_is_said(caplog, size, how, message):
    camera = pinhole_camera(size[1], size[0], 40)
    picture = Geometry(
        frames=torch.zeros(1, *size, 3), depth=torch.ones(1, *size), valid=torch.ones(1, *size) > 0, cameras=camera
    )
    with caplog.at_level(logging.WARNING, "lyra"):
        fit(picture, 44, 80, how)
    assert message in caplog.text if message else not caplog.text
