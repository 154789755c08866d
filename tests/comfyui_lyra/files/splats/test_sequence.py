import json
import shutil
from collections import namedtuple

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.load import load_cameras
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from lyra_pack.comfyui_lyra.files.splats.save import Placing
from lyra_pack.comfyui_lyra.files.splats.sequence import SPLAT_BYTES, load_sequence, save_sequence
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians, GaussianSequence
from lyra_pack.comfyui_lyra.versions import pack_version


def splats(count: int, seed: int) -> Gaussians:
    gen = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=gen),
        scales=torch.rand(count, 3, generator=gen) + 0.1,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=gen), dim=-1),
        opacities=torch.rand(count, generator=gen) * 0.9 + 0.05,
        colors=torch.rand(count, 3, generator=gen),
    )


@pytest.fixture
def sequence() -> GaussianSequence:
    return GaussianSequence(frames=(splats(5, 0), splats(3, 1)), times=(60, 8))


def test_a_folder_holds_every_time_its_cameras_and_what_they_are(tmp_path, sequence, two_paths):
    seen = []
    save_sequence(
        tmp_path / "scene", sequence, two_paths, fps=12.5, placing=Placing(scale=2.0),
        on_step=lambda *step: seen.append(step),
    )  # fmt: skip
    assert seen == [(1, 2), (2, 2)]
    assert sorted(f.name for f in (tmp_path / "scene").iterdir()) == [
        "00000.ply", "00001.ply", "cameras.json", "manifest.json",
    ]  # fmt: skip
    manifest = json.loads((tmp_path / "scene" / "manifest.json").read_text())
    assert manifest == {
        "format": "lyra-splat-sequence", "version": 1, "axes": "opencv", "fps": 12.5, "scale": 2.0,
        "pack": pack_version(), "cameras": "cameras.json", "metres_per_unit": None,
        "frames": [{"file": "00000.ply", "time": 60, "splats": 5}, {"file": "00001.ply", "time": 8, "splats": 3}],
    }  # fmt: skip
    for entry, frame in zip(manifest["frames"], sequence.frames, strict=True):
        loaded = load_ply(tmp_path / "scene" / entry["file"])
        assert torch.allclose(loaded.means, 2 * frame.means)
        assert torch.allclose(loaded.scales, 2 * frame.scales)
        assert torch.allclose(loaded.colors, frame.colors, atol=1e-6)
    for found, path in zip(load_cameras(tmp_path / "scene" / "cameras.json"), two_paths, strict=True):
        assert torch.allclose(found.c2w[:, :3, 3], 2 * path.c2w[:, :3, 3])
        assert torch.equal(found.c2w[:, :3, :3], path.c2w[:, :3, :3]) and torch.equal(found.K, path.K)


def test_without_cameras_there_is_no_such_file(tmp_path, sequence):
    save_sequence(tmp_path / "scene", sequence)
    assert json.loads((tmp_path / "scene" / "manifest.json").read_text())["cameras"] is None
    assert not (tmp_path / "scene" / "cameras.json").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path, sequence):
    (tmp_path / "scene").mkdir()
    with pytest.raises(ValueError, match="scene is there already; choose another name"):
        save_sequence(tmp_path / "scene", sequence)


def test_nothing_is_left_of_a_sequence_that_was_stopped(tmp_path, sequence):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_sequence(tmp_path / "scene", sequence, on_step=stop)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, sequence, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 8 * SPLAT_BYTES - 1))
    with pytest.raises(ValueError, match="448 bytes .* are needed and 447 "):
        save_sequence(tmp_path / "scene", sequence)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 8 * SPLAT_BYTES))
    save_sequence(tmp_path / "scene", sequence)
    assert (tmp_path / "scene" / "00000.ply").stat().st_size >= 5 * SPLAT_BYTES


def test_a_folder_comes_back_by_its_manifest_or_by_the_numbers_of_its_files(tmp_path, sequence):
    placing = Placing(scale=2.0, up="z_up", metres=1.0)
    save_sequence(tmp_path / "scene", sequence, fps=12.5, placing=placing)
    about = json.loads((tmp_path / "scene" / "manifest.json").read_text())
    assert (about["axes"], about["metres_per_unit"]) == ("z_up", 1.0)
    found, fps = load_sequence(tmp_path / "scene")
    assert (found.times, fps) == ((60, 8), 12.5)
    for frame, given in zip(found.frames, sequence.frames, strict=True):
        torch.testing.assert_close(frame.means, 2 * given.means)

    (tmp_path / "scene" / "manifest.json").unlink()
    for index, time in enumerate((60, 8)):
        (tmp_path / "scene" / f"0000{index}.ply").rename(tmp_path / "scene" / f"splats_{time:04}.ply")
    found, fps = load_sequence(tmp_path / "scene")
    assert (found.times, fps) == ((8, 60), 24.0)
    assert [len(frame) for frame in found.frames] == [3, 5]


def test_a_manifest_leads_nowhere_else(tmp_path, sequence):
    save_sequence(tmp_path / "scene", sequence)
    file = tmp_path / "scene" / "manifest.json"
    for name in ("../00000.ply", "/etc/passwd", 3):
        about = json.loads(file.read_text())
        about["frames"][0]["file"] = name
        file.write_text(json.dumps(about))
        with pytest.raises(ValueError, match="manifest.json: .*expected a file beside it"):
            load_sequence(tmp_path / "scene")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no sequence of splats; expected manifest.json, or files with a number each"):
        load_sequence(tmp_path / "empty")
