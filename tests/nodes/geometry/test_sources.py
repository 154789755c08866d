import logging
import zipfile

import numpy as np
import OpenEXR
import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.files.cameras.npz import save_cameras_npz  # noqa: E402
from lyra_pack.comfyui_lyra.files.media.video import save_video  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.fit import fit  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry  # noqa: E402
from lyra_pack.nodes.camera.paths import CameraPaths, PreviewCameras  # noqa: E402
from lyra_pack.nodes.comfy import progress  # noqa: E402
from lyra_pack.nodes.comfy import types as sockets
from lyra_pack.nodes.geometry.preview_cache import PreviewCache  # noqa: E402
from lyra_pack.nodes.geometry.sources import (  # noqa: E402
    GeometryFromDA3,
    GeometryFromDepth,
    GeometryFromMoGe,
    shown,
)
from lyra_pack.nodes.geometry.vipe import LoadViPE  # noqa: E402

HEIGHT, WIDTH = 40, 64  # of the sources; the models want 32x48
FIT = {"width": 48, "height": 32, "fit": "crop", "scale": "auto"}
MOVES = {
    "preset": "six_paths", "movement": 1.0, "rotation": "center_facing", "seed": 3, "frames": 5, "fps": 8.0,
    "width": 640, "height": 480, "fov": 90.0, "center_depth": 1.0, "draw": "seeded",
}  # fmt: skip
PREVIEW = {"path": 0, "every": 1, "foreground_masking": True}


def picture(count: int = 1) -> torch.Tensor:
    return torch.rand(count, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))


def depth(count: int = 1) -> torch.Tensor:
    """A wall at 6 with a box before it at 3, which moves to the right."""
    values = torch.full((count, HEIGHT, WIDTH), 6.0)
    for frame in range(count):
        values[frame, 10:30, 20 + frame : 40 + frame] = 3
    return values


def moge(**changes) -> dict:
    found = {"depth": depth(), "mask": torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool), "image": picture()}
    return found | {"intrinsics": torch.tensor([[[0.5, 0, 0.5], [0, 0.8, 0.5], [0, 0, 1]]])} | changes


def models_view(geometry: Geometry) -> Geometry:
    """The geometry, brought to the size that its node was told."""
    assert geometry.frames.shape[1:3] == (HEIGHT, WIDTH), "it keeps its own"
    return fit(geometry, *geometry.fitting.size)


def from_depth(image=None, values=None, **changes):
    given = {"meaning": "depth", "near": 1.0, "far": 10.0, "fov": 60.0} | FIT | changes
    image, values = picture() if image is None else image, depth() if values is None else values
    return GeometryFromDepth.execute(image, values, **given).args[0]


def test_moge_brings_depth_and_lens_at_the_models_size():
    found = models_view(GeometryFromMoGe.execute(picture(), moge(), **FIT).args[0])
    assert found.frames.shape == (1, 32, 48, 3)
    assert (found.scale, found.center_depth) == (6, 1)
    # the crop keeps 60 of 64 columns, so fx = 0.5 * 64 / 60 * 48
    assert found.cameras.K[0].flatten().tolist() == pytest.approx([25.6, 0, 24, 0, 25.6, 16, 0, 0, 1])
    reference = FIT | {"fit": "reference", "scale": "as_is"}
    squashed = models_view(GeometryFromMoGe.execute(picture(), moge(), **reference).args[0])
    assert (squashed.scale, squashed.center_depth) == (1, 6)
    assert squashed.cameras.K[0].flatten().tolist() == pytest.approx([24, 0, 24, 0, 25.6, 16, 0, 0, 1])
    assert not torch.equal(squashed.frames, found.frames)


def test_moges_sky_is_kept_as_background():
    mask = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, :8] = False
    sky = moge(mask=mask, depth=depth().where(mask, torch.inf))
    found = models_view(GeometryFromMoGe.execute(picture(), sky, **FIT).args[0])
    assert found.depth[0, :6].isinf().all() and found.depth[0, 7:].isfinite().all()
    with pytest.raises(ValueError, match="panorama"):
        panorama = {name: value for name, value in moge().items() if name != "intrinsics"}
        GeometryFromMoGe.execute(picture(), panorama, **FIT)


def da3(count: int, **changes) -> dict:
    K = torch.tensor([[20.0, 0, 16], [0, 20, 10], [0, 0, 1]]).repeat(1, count, 1, 1)
    w2c = torch.eye(4)[:3].repeat(1, count, 1, 1)
    w2c[0, :, 0, 3] = -0.6 * torch.arange(count)  # goes right
    return {"depth": depth(count), "image": picture(count), "extrinsics": w2c, "intrinsics": K} | changes


def test_depth_anything_brings_the_cameras_of_a_clip(caplog):
    found = models_view(GeometryFromDA3.execute(picture(4), da3(4), 60.0, **FIT).args[0])
    assert (len(found.cameras), found.frames.shape) == (4, (4, 32, 48, 3))
    assert found.cameras.c2w[:, 0, 3].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert found.cameras.K[0, 0].tolist() == pytest.approx([20 * 2 * 48 / 60, 0, 24])
    assert "the source camera moves by 30 %" in caplog.text


def test_depth_anything_in_mono_mode_takes_the_field_of_view():
    mono = {name: value for name, value in da3(1).items() if name not in ("extrinsics", "intrinsics")}
    found = models_view(GeometryFromDA3.execute(picture(), mono, 90.0, **FIT).args[0])
    assert found.cameras.K[0, 1, 1] == pytest.approx(16)  # half the height at 45 degrees
    with pytest.raises(ValueError, match="mono mode gives no poses for 3 frames"):
        GeometryFromDA3.execute(picture(3), mono | {"depth": depth(3)}, 90.0, **FIT)


@pytest.mark.parametrize(
    ("meaning", "values"),
    [
        ("depth", depth()),
        ("depth", depth()[..., None].expand(-1, -1, -1, 3)),
        ("disparity", 1 / depth()),
        ("near-far", (1 / depth() - 1 / 10) / (1 - 1 / 10)),
    ],
)
def test_depth_pictures_of_each_meaning_give_the_same_geometry(meaning, values):
    found = from_depth(values=values, meaning=meaning)
    expected = from_depth()
    torch.testing.assert_close(found.depth, expected.depth)
    assert found.scale == pytest.approx(6) and found.depth.max() == pytest.approx(1)
    assert torch.equal(found.cameras.K, expected.cameras.K)


def test_a_smaller_depth_picture_is_enlarged_and_another_shape_refused():
    small = from_depth(values=depth()[:, ::2, ::2])
    assert torch.equal(small.depth, from_depth().depth)
    with pytest.raises(ValueError, match="the depth picture: depth of 32x40 for a picture of 64x40; make the depth"):
        from_depth(values=depth()[:, :, ::2])
    with pytest.raises(ValueError, match="a coloured picture holds no depth"):
        from_depth(values=picture())
    levels = (depth() * 10).round() / 255
    levels[0, 0, :3] = torch.tensor([0.0, 1.0, 40 / 255])
    with pytest.raises(ValueError, match="holds 8-bit levels .* use near-far"):
        from_depth(values=levels)


def test_sixteen_bits_take_their_unit_from_the_widget(caplog):
    levels = (depth() * 1000 + torch.arange(WIDTH)).round() / 65535
    metres = from_depth(values=depth() + torch.arange(WIDTH) / 1000, scale="as_is")
    torch.testing.assert_close(from_depth(values=levels, scale="as_is", unit="mm").depth, metres.depth)
    assert not caplog.text
    from_depth(values=levels)
    assert "16-bit levels, read as numbers / 65535 of an unknown unit" in caplog.text
    with pytest.raises(ValueError, match="no lengths in mm"):
        from_depth(values=levels, meaning="near-far", unit="mm")


def test_lengths_are_no_near_far_picture():
    with pytest.raises(ValueError, match="near-far pictures hold levels from 0 to 1, these run from 3 to 6: lengths"):
        from_depth(meaning="near-far")


def test_where_a_depth_picture_is_clear_nothing_is_known():
    alpha = torch.ones(1, HEIGHT, WIDTH, 1)
    alpha[:, :20] = 0
    found = models_view(from_depth(values=torch.cat([depth()[..., None].expand(-1, -1, -1, 3), alpha], -1)))
    assert not found.valid[0, :16].any() and found.valid[0, 16:].all() and (found.depth[0, :16] == 0).all()


@pytest.mark.parametrize("make", ["moge", "depth"])
def test_a_node_says_what_is_cut_of_an_upright_picture(monkeypatch, make):
    said = []
    monkeypatch.setattr(progress, "show_text", lambda node, text: said.append(text))
    wide = FIT | {"width": 160, "height": 32}
    if make == "moge":
        GeometryFromMoGe.execute(picture(), moge(), **wide)
    else:
        from_depth(**wide)
    assert "70 % is cut away, at top and bottom; the middle 64x12 stays" in said[0]


def test_transparent_parts_lie_over_white():
    half = torch.cat([picture(), torch.full((1, HEIGHT, WIDTH, 1), 0.5)], -1)
    torch.testing.assert_close(from_depth(half).frames, from_depth(picture() / 2 + 0.5).frames)


def test_a_clip_takes_its_cameras_from_a_path():
    camera = pinhole_camera(WIDTH, HEIGHT, 60)
    c2w = camera.c2w.repeat(3, 1, 1)
    c2w[:, 1, 3] = torch.tensor([5.0, 5.6, 6.2])
    path = CameraTrajectory(c2w=c2w, K=camera.K.repeat(3, 1, 1), height=HEIGHT, width=WIDTH, fps=30)
    found = models_view(from_depth(picture(3), depth(3), fov=1.0, cameras=(path,)))
    assert found.cameras.c2w[:, 1, 3].tolist() == pytest.approx([0, 0.1, 0.2], abs=1e-6)
    assert found.cameras.K[0, 1, 1] == pytest.approx(16 / np.tan(np.radians(30)))
    with pytest.raises(ValueError, match="expected one camera path, .*; this set holds 2"):
        from_depth(picture(3), depth(3), cameras=(path, path))
    with pytest.raises(ValueError, match="so 3 frames cannot be placed; .* or say that the camera stands still"):
        from_depth(picture(3), depth(3))
    still = from_depth(picture(3), depth(3), still=True).cameras
    assert torch.equal(still.c2w, torch.eye(4).repeat(3, 1, 1)) and len(still.K) == 3


@pytest.mark.parametrize("count", [1, 5])
def test_camera_paths_start_from_the_geometry_and_the_cache_shows_it(count, folders):
    clip = GeometryFromDA3.execute(picture(5), da3(5), 60.0, **FIT).args[0]
    geometry = from_depth() if count == 1 else clip
    (paths,), given = CameraPaths.execute(**MOVES, geometry=geometry).args, geometry
    geometry = models_view(given)
    assert {(len(path), path.width, path.height) for path in paths} == {(5, 48, 32)}
    for path in paths:
        assert torch.allclose(path.c2w[0], torch.eye(4), atol=1e-6)
        assert torch.equal(path.K, geometry.cameras.K.expand(5, -1, -1))
    if count == 5:  # moves are made on top of the clip's own
        still, base = paths[3].c2w[:, 0, 3], geometry.cameras.c2w[:, 0, 3]
        assert torch.allclose(still, base, atol=1e-6) and base[-1] > 0.3
    result = PreviewCache.execute(given, paths, **PREVIEW | {"every": 2})
    frames, known = result.args
    assert (frames.shape, known.shape) == ((3, 32, 48, 3), (3, 32, 48))
    assert len(result.ui.as_dict()["images"]) == 3
    seen = known[0] > 0
    assert 0.5 < seen.float().mean() < 1
    assert ((frames[0] - geometry.frames[0]).abs().amax(-1)[seen] < 2e-3).float().mean() > 0.97
    with pytest.raises(ValueError, match="path 6: the set holds 6"):
        PreviewCache.execute(geometry, paths, **PREVIEW | {"path": 6})
    with pytest.raises(ValueError, match="make the camera path from the same geometry"):
        PreviewCache.execute(geometry, CameraPaths.execute(**MOVES).args[0], **PREVIEW)


def test_sky_is_drawn_wherever_the_camera_goes(folders):
    disparity = 1 / depth()
    disparity[:, :10] = 0
    geometry = from_depth(values=disparity, meaning="disparity")
    assert geometry.depth[0, 0].isinf().all()
    straight = MOVES | {"preset": "right", "rotation": "no_rotation"}
    (paths,) = CameraPaths.execute(**straight, geometry=geometry).args
    frames, known = PreviewCache.execute(geometry, paths, **PREVIEW).args
    assert frames.isfinite().all()
    assert (known[:, 0, :-1] > 0).all()
    assert (frames[-1, 0, :-1] - frames[0, 0, :-1]).abs().max() < 0.2  # so far away that it hardly moves


def test_the_drawing_of_paths_shows_the_geometry(folders):
    geometry = from_depth()
    (paths,) = CameraPaths.execute(**MOVES, geometry=geometry).args
    bare, shown = (PreviewCameras.execute(paths, 320, 192, **given).args[0] for given in ({}, {"geometry": geometry}))
    assert shown.shape == (1, 192, 320, 3) and not torch.equal(bare, shown)
    splat = sockets.to_splat([_wall()])
    both = PreviewCameras.execute(paths, 320, 192, splat, geometry).args[0]
    assert not torch.equal(both, shown)


def _wall():
    from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene

    return demo_scene()


@pytest.fixture
def vipe(folders):
    """A ViPE folder of 4 frames, in the input folder."""
    root = folders / "input" / "vipe"
    save_video(root / "rgb" / "clip.mp4", picture(4), 12.0)
    camera = pinhole_camera(WIDTH, HEIGHT, 60)
    path = CameraTrajectory(
        c2w=camera.c2w.repeat(4, 1, 1), K=camera.K.repeat(4, 1, 1), height=HEIGHT, width=WIDTH, fps=12.0
    )
    save_cameras_npz(root / "pose" / "clip.npz", root / "intrinsics" / "clip.npz", path)
    (root / "depth").mkdir()
    with zipfile.ZipFile(root / "depth" / "clip.zip", "w") as archive:
        for frame, values in enumerate(depth(4).numpy().astype(np.float16)):
            OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": values}).write(str(folders / "one.exr"))
            archive.write(folders / "one.exr", f"{frame:05d}.exr")
    return root


def test_a_vipe_folder_gives_geometry_and_frames(vipe, caplog):
    given = {"path": "vipe", "start": 1, "frames": 3} | FIT | {"strict": False}
    assert LoadViPE.validate_inputs("vipe") is True
    geometry, frames = LoadViPE.execute(**given).args
    assert (len(geometry.cameras), geometry.cameras.fps, geometry.scale) == (3, 12, 6)
    assert frames.shape == (3, 32, 48, 3) and torch.equal(frames, models_view(geometry).frames.clamp(0, 1))
    box = from_depth(picture(1), depth(2)[1:]).depth
    assert torch.equal(geometry.depth[:1], box)
    by_file, _ = LoadViPE.execute(**given | {"path": str(vipe / "rgb" / "clip.mp4")}).args
    assert torch.equal(by_file.depth, geometry.depth)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_changed_vipe_folder_is_read_again_and_a_missing_one_said(vipe):
    before = LoadViPE.fingerprint_inputs("vipe"), LoadViPE.fingerprint_inputs(str(vipe / "rgb" / "clip.mp4"))
    assert before[0] == before[1] == LoadViPE.fingerprint_inputs("vipe")
    (vipe / "depth" / "clip.zip").write_bytes(b"")
    assert LoadViPE.fingerprint_inputs("vipe") != before[0]
    assert "'gone' is neither in" in LoadViPE.validate_inputs("gone")


def test_cameras_lie_on_the_cpu_also_where_pictures_do_not(card):
    """With --gpu-only: paths of files, of the view and of a geometry are joined."""
    on_card = Geometry(
        frames=torch.zeros(1, 32, 48, 3, device=card), depth=torch.ones(1, 32, 48, device=card),
        valid=torch.ones(1, 32, 48, dtype=torch.bool, device=card), cameras=pinhole_camera(48, 32, 50).to(card),
    )  # fmt: skip
    found = shown(GeometryFromDepth, on_card)
    assert {t.device.type for t in (found.cameras.c2w, found.cameras.K)} == {"cpu"} and found.depth.device == card
