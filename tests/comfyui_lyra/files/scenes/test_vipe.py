import io
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from lyra_pack.comfyui_lyra.files.media import exr
from lyra_pack.comfyui_lyra.files.media.video import save_video
from lyra_pack.comfyui_lyra.files.scenes import vipe
from lyra_pack.comfyui_lyra.files.scenes.vipe import decode_exr, load_vipe
from lyra_pack.comfyui_lyra.geometry.fit import crop_as_reference, resize_as_reference
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from lyra_pack.comfyui_lyra.sources.geometry import from_vipe

EXR_MAGIC = b"v/1\x01"


def shaped_as_reference(geometry: Geometry, meta: dict) -> Geometry:
    return crop_as_reference(resize_as_reference(geometry, *meta["resize_hw"]), *meta["crop_hw"])


def video(geometry: Geometry) -> torch.Tensor:
    return geometry.frames.movedim(-1, 1) * 2 - 1


@pytest.mark.golden("teacher/vipe_expected")
def test_a_folder_loads_as_in_the_reference(golden):
    meta, folder = golden.meta, golden.path.parent / "vipe_sample"
    count = meta["num_frames"]
    found = shaped_as_reference(load_vipe(folder, meta["start"], count, masks=True), meta)
    assert torch.allclose(found.depth, golden["depth"][:, 0], atol=1e-4)
    assert torch.equal(found.valid.float(), golden["mask"][:, 0])
    assert torch.allclose(found.cameras.viewmats, golden["w2c"], atol=1e-5)
    assert torch.allclose(found.cameras.K, golden["K"], atol=1e-4)
    shown = [0, meta["F"] - 2, count - 1]
    assert (video(found)[shown] - golden["frames"]).abs().max() < 0.03
    without = golden["nomask_frames"]
    mp4 = folder / "rgb" / f"{meta['stem']}.mp4"
    found = shaped_as_reference(load_vipe(mp4, 0, len(without)), meta)
    assert (video(found) - without).abs().max() < 0.03
    assert torch.equal(found.valid.float(), golden["nomask_mask"][:, 0])


@pytest.mark.golden("teacher/vipe_expected")
def test_a_folder_holds_what_was_written(golden):
    meta, folder = golden.meta, golden.path.parent / "vipe_sample"
    found = load_vipe(folder, 0, meta["F"], masks=True)
    assert list(found.depth.shape[1:]) == meta["source_hw"]
    assert torch.equal(found.depth, golden["raw_depth"])
    assert torch.equal(found.cameras.c2w, golden["raw_c2w"])
    K, numbers = found.cameras.K, golden["raw_fxfycxcy"]
    assert torch.equal(torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], 1), numbers)
    assert torch.equal(found.valid, golden["raw_instance"] > 0)
    written = golden["raw_frames_before_encoding"].float() / 255  # the first and the last that the other test is shown
    error = (found.frames[:, None] - written).abs().mean((2, 3, 4))
    assert error.argmin(0).tolist() == [meta["start"], meta["F"] - 1]
    assert error.amin(0).max() < 0.03


@pytest.mark.golden("teacher/vipe_sample/*")
def test_each_file_of_a_folder_is_missed_only_where_it_is_needed(golden, tmp_path):
    file, folder = golden.path, tmp_path / "copy"
    shutil.copytree(file.parents[1], folder)
    whole = load_vipe(folder, 0, 3, masks=True)
    (folder / file.parent.name / file.name).unlink()
    if file.suffix == ".txt":  # phrases of the masks and types of the lenses
        assert torch.equal(load_vipe(folder, 0, 3, masks=True).depth, whole.depth)
        return
    if file.parent.name == "mask":
        assert load_vipe(folder, 0, 3).valid.all()
    with pytest.raises(FileNotFoundError, match=file.name if file.suffix != ".mp4" else "rgb/<clip>.mp4"):
        load_vipe(folder, 0, 3, masks=True)


@pytest.mark.golden("teacher/vipe_malformed/*")
def test_malformed_files_behave_as_specified(golden, tmp_path, caplog):
    file, expected, folder = golden.path, golden.other("vipe_expected"), tmp_path / "copy"
    shutil.copytree(file.parents[1] / "vipe_sample", folder)
    kind, problem = file.stem.split("_", 1)
    target = folder / kind / f"{expected.meta['stem']}{file.suffix}"
    target.unlink()
    shutil.copyfile(file, target)
    before = sorted(tmp_path.rglob("*"))
    total = expected.meta["F"]
    errors = {
        "intrinsics_5": (ValueError, "only pinhole cameras are read"),
        "depth_truncated": (ValueError, "not a complete zip archive"),
    }
    if file.stem in errors:
        kind_of_error, message = errors[file.stem]
        with pytest.raises(kind_of_error, match=message):
            load_vipe(folder, 0, total)
        return
    with caplog.at_level(logging.WARNING, "lyra"):
        found = load_vipe(folder, 0, total)
    assert sorted(tmp_path.rglob("*")) == before
    c2w, depth = expected["raw_c2w"], expected["raw_depth"]
    if kind == "pose":
        check_poses(found.cameras.c2w, c2w, file, caplog.text)
        if missing_rows(file, total).any():
            with pytest.raises(
                ValueError, match=f"{target.name}: frame {missing_rows(file, total).argmax()} is missing"
            ):
                load_vipe(folder, 0, total, strict=True)
    else:
        assert torch.equal(found.cameras.c2w, c2w)
    if kind == "depth":
        check_depth(found, depth, file, problem, caplog.text)
    else:
        assert torch.equal(found.depth, depth)
    K = found.cameras.K
    numbers = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], 1)
    assert torch.allclose(numbers, expected["raw_fxfycxcy"])


def missing_rows(file: Path, total: int) -> np.ndarray:
    """Which of the frames have no finite pose in a file."""
    arrays = np.load(file)
    there = np.zeros(total, bool)
    finite = np.isfinite(arrays["data"]).reshape(len(arrays["data"]), -1).all(1)
    there[arrays["inds"][finite] if "inds" in arrays else np.flatnonzero(finite)] = True
    return ~there


def check_poses(found: torch.Tensor, expected: torch.Tensor, file: Path, log: str) -> None:
    """Frames with a pose have it, the others that of a nearest neighbour, with a warning."""
    missing = missing_rows(file, len(expected))
    there = np.flatnonzero(~missing)
    assert torch.equal(found[there], expected[there])
    assert ("neighbours stand in" in log) == missing.any()
    for frame in np.flatnonzero(missing):
        nearest = there[np.abs(there - frame) == np.abs(there - frame).min()]
        assert any(torch.equal(found[frame], expected[other]) for other in nearest)


def check_depth(found: Geometry, expected: torch.Tensor, file: Path, problem: str, log: str) -> None:
    """Frames have the depth of their map, none where it is missing or damaged; strange values are not valid."""
    archive = zipfile.ZipFile(file)
    names = {int(name[:5]): name for name in archive.namelist() if "/" not in name}
    damaged = {frame for frame, name in names.items() if archive.read(name)[:4] != EXR_MAGIC}
    assert ("damaged maps" in log) == bool(damaged) == (problem == "corrupt_frame")
    assert ("missing maps" in log) == (len(names) < len(expected))
    for frame in range(len(expected)):
        if frame not in names or frame in damaged:
            assert not found.valid[frame].any()
            assert not found.depth[frame].any()
            continue
        values = torch.from_numpy(decode_exr(archive.read(names[frame])).astype(np.float32))
        strange = values.half() != expected[frame].half()  # inf, NaN, -1, 0 and 65504 of the special values
        assert strange.any() == (problem == "special_values")
        assert torch.equal(found.valid[frame], values.isfinite() & (values > 0))
        background = values == torch.inf
        assert torch.equal(found.depth[frame], torch.where(found.valid[frame] | background, values, 0))


def test_a_float_map_is_not_read_as_halves():
    values = np.linspace(1, 9, 12, dtype=np.float32).reshape(3, 4)
    for dtype in (np.float32, np.float16):
        file = io.BytesIO()
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": values.astype(dtype)}).write(file)
        found = decode_exr(file.getvalue())
        assert found.dtype == dtype
        assert np.array_equal(found, values.astype(dtype))


def write_folder(
    folder: Path, frames: int = 4, poses: int | None = None, depth_size: tuple[int, int] = (16, 32)
) -> Path:
    """A ViPE result with depth = frame + 1 and an archive of depth only."""
    for name in ("rgb", "pose", "intrinsics", "depth"):
        (folder / name).mkdir(parents=True)
    save_video(folder / "rgb" / "b.mp4", torch.arange(frames)[:, None, None, None].expand(-1, 16, 32, 3) / 10, 24)
    c2w = np.tile(np.eye(4, dtype=np.float32), (poses or frames, 1, 1))
    c2w[:, 0, 3] = np.arange(len(c2w))
    np.savez(folder / "pose" / "b.npz", data=c2w)
    np.savez(
        folder / "intrinsics" / "b.npz", data=np.tile(np.float32([20, 20, 16, 8]), (frames, 1)), inds=np.arange(frames)
    )
    with zipfile.ZipFile(folder / "depth" / "b.zip", "w") as archive:
        for frame in range(frames):
            file = io.BytesIO()
            OpenEXR.File({}, {"Z": np.full(depth_size, frame + 1, np.float16)}).write(file)
            archive.writestr(f"{frame:05d}.exr", file.getvalue())
    return folder


def test_the_first_clip_is_taken_and_its_end_repeated(tmp_path):
    folder = write_folder(tmp_path / "vipe")
    shutil.copyfile(folder / "rgb" / "b.mp4", folder / "rgb" / "c.mp4")
    (folder / "rgb" / "._b.mp4").write_bytes(b"macOS")
    found = load_vipe(folder, start=2, count=4)
    assert found.depth[:, 0, 0].tolist() == [3, 4, 4, 4]
    assert found.cameras.c2w[:, 0, 3].tolist() == [2, 3, 3, 3]
    assert found.cameras.fps == 24
    assert found.cameras.name == "b"
    with pytest.raises(ValueError, match="b.mp4: holds no frame 4; it has 4, counted from 0"):
        load_vipe(folder, start=4, count=2)
    with pytest.raises(FileNotFoundError, match="nowhere: not a ViPE result"):
        load_vipe(tmp_path / "nowhere")


def test_depth_of_another_size_is_resized_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "lyra"):
        found = load_vipe(write_folder(tmp_path / "vipe", depth_size=(8, 16)), count=4)
    assert found.depth.shape == (4, 16, 32)
    assert found.depth[2].unique().tolist() == [3]
    assert "they are resized" in caplog.text


def test_what_cannot_be_matched_is_an_error(tmp_path):
    folder = write_folder(tmp_path / "short", poses=3)
    with pytest.raises(ValueError, match="3 rows without frame numbers 'inds' for a video of 4 frames"):
        load_vipe(folder)
    folder = write_folder(tmp_path / "wide")
    (folder / "intrinsics" / "b_camera.txt").write_text("0: PINHOLE\n1: MEI\n")
    with pytest.raises(ValueError, match="b_camera.txt: camera type MEI; only PINHOLE is read"):
        load_vipe(folder)
    folder = write_folder(tmp_path / "nan")
    np.savez(folder / "pose" / "b.npz", data=np.full((4, 4, 4), np.nan))
    with pytest.raises(ValueError, match="holds no finite row"):
        load_vipe(folder)
    folder = write_folder(tmp_path / "empty")
    with zipfile.ZipFile(folder / "depth" / "b.zip", "w") as archive:
        archive.writestr("../00000.exr", b"")
    with pytest.raises(ValueError, match="holds no maps named 00000.exr"):
        load_vipe(folder)


def write_maps(folder: Path, maps: dict[str, np.ndarray]) -> None:
    """Replace the depth archive."""
    with zipfile.ZipFile(folder / "depth" / "b.zip", "w") as archive:
        for name, values in maps.items():
            file = io.BytesIO()
            OpenEXR.File({}, {"Z": values}).write(file)
            archive.writestr(name, file.getvalue())


@pytest.mark.parametrize("sky", [1000, np.inf])
def test_the_sky_of_a_vipe_result_is_background_and_its_unit_goes(tmp_path, sky):
    folder = write_folder(tmp_path / "vipe")
    depth = np.full((16, 32), 4, np.float16)
    depth[:10] = sky
    write_maps(folder, {"00000.exr": depth, "00001.exr": depth})
    found = from_vipe(folder, count=2)
    assert found.scale == 4
    assert found.depth[:, :10].isinf().all()
    assert (found.depth[:, 10:] == 1).all()
    assert found.cameras.c2w[:, 0, 3].tolist() == [0, 0.25]


@pytest.mark.parametrize("there", [(0, 1, 3), (0, 1, 2)])
def test_where_a_map_is_missing_nothing_is_known(tmp_path, caplog, there):
    folder = write_folder(tmp_path / "vipe")
    write_maps(folder, {f"{frame:05d}.exr": np.full((16, 32), frame + 1, np.float16) for frame in there})
    with caplog.at_level(logging.WARNING, "lyra"):
        found = load_vipe(folder, count=4)
    (gone,) = set(range(4)) - set(there)
    assert found.valid.flatten(1).any(1).tolist() == [frame in there for frame in range(4)]
    assert found.depth[:, 0, 0].tolist() == [frame + 1 if frame in there else 0 for frame in range(4)]
    assert f"b.zip: 1 missing maps (first: frame {gone}); nothing is known there" in caplog.text
    with pytest.raises(ValueError, match=f"b.zip: holds no map of the 1 frame from {gone} on"):
        load_vipe(folder, start=gone, count=1)


def test_a_clip_that_ends_early_repeats_its_last_frame_with_a_warning(tmp_path, caplog):
    folder = write_folder(tmp_path / "vipe")
    with caplog.at_level(logging.WARNING, "lyra"):
        load_vipe(folder, count=4)
        assert not caplog.text
        assert load_vipe(folder, start=2, count=4).depth[:, 0, 0].tolist() == [3, 4, 4, 4]
    assert "b.mp4: ends after 2 of 4 frames; its last one is repeated" in caplog.text


def test_maps_in_one_folder_of_the_archive_are_read(tmp_path):
    folder, values = write_folder(tmp_path / "vipe"), np.full((16, 32), 2, np.float16)
    names = [f"{frame:05d}.exr" for frame in range(4)]
    write_maps(folder, {f"depth/{name}": values for name in names} | {"__MACOSX/._00000.exr": values})
    assert (load_vipe(folder, count=4).depth == 2).all()
    write_maps(folder, {f"depth/{name}": values for name in names} | {name: values + 1 for name in names})
    assert (load_vipe(folder, count=4).depth == 3).all()
    write_maps(folder, {f"{part}/{name}": values for part in "ab" for name in names})
    with pytest.raises(ValueError, match="b.zip: holds maps in several folders: a, b"):
        load_vipe(folder, count=4)


def test_maps_that_claim_to_be_enormous_are_damaged(tmp_path, monkeypatch, caplog):
    folder = write_folder(tmp_path / "vipe")
    for place, limit in ((exr, 16 * 32 - 1), (vipe, 10)):  # the header's claim, the archive's claim
        monkeypatch.setattr(place, "MOST_PIXELS", limit)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "lyra"):
            assert not load_vipe(folder, count=2).valid.any()
        assert "damaged maps" in caplog.text
