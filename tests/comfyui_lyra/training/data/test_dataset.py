import bz2
import gzip
import io
import json
import logging
import lzma
import os
import shutil
import sys
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.depth_zip import save_depth_zip
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.training.data import dataset as module
from lyra_pack.comfyui_lyra.training.data.dataset import SdgDataset, hashed_split, plain_name, split_scenes
from lyra_pack.comfyui_lyra.training.data.members import find_members
from lyra_pack.comfyui_lyra.training.data.sdg_scene import BrokenScene, SdgScene
from lyra_pack.comfyui_lyra.training.stages import MINI_STAGES
from lyra_pack.comfyui_lyra.training.world.draw_scenes import draw_scenes, scene_paths
from lyra_pack.comfyui_lyra.training.world.raytrace import trace

pytestmark = pytest.mark.slow  # seconds together

HEIGHT, WIDTH, FRAMES, PATHS = 32, 48, 9, 2
NAMES = ("apple", "bird", "cloud", "door")
STATIC = replace(
    MINI_STAGES["m4"], size=(HEIGHT, WIDTH), input_frames=FRAMES, target_frames=2, max_views=PATHS
)  # fmt: skip
DYNAMIC = replace(STATIC, dynamic=True, target_views=2 * PATHS)


def write_scene(root: Path, name: str, seed: int) -> None:
    """A moving scene as our generator writes it, from true renders: two paths, their twins, latents, depth."""
    scene, times = draw_scenes([seed], moving=True), torch.linspace(0, 1, FRAMES)
    paths = scene_paths(seed, FRAMES, HEIGHT, WIDTH, "large")[:PATHS]
    generator = torch.Generator().manual_seed(seed)
    for flipped in (False, True):
        store = PathStore(root, name, reference_format=not flipped, flipped=flipped)
        store.begin({"seed": str(seed)}, paths, 16 * 2 * 4 * 6)
        for index, path in enumerate(paths):
            made = trace(scene, [path], times.flip(0) if flipped else times)  # as a perfect teacher generates
            latents = VideoLatents(values=torch.randn(1, 16, 2, HEIGHT // 8, WIDTH // 8, generator=generator))
            store.save(
                index, MultiViewLatents(latents=latents, cameras=(path,), family="mini", dynamic=True),
                lambda made=made: made.rgb[0],
            )  # fmt: skip
            depth = made.depth[0].flip(0) if flipped else made.depth[0]
            save_depth_zip(root / str(index + PATHS * flipped) / "depth" / f"{name}.zip", depth)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sdg") / "data"
    for seed, name in enumerate(NAMES):
        write_scene(root, name, seed)
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "data"))


@pytest.fixture
def everything(monkeypatch):
    """All scenes in the training split."""
    monkeypatch.setitem(module.SHARES, "train", 1e9)


def scene_of(root: Path, name: str, views: int = PATHS) -> SdgScene:
    return SdgScene(name, find_members([root])[f"{root}/{name}"], PATHS, range(views))


def names(scenes) -> list[str]:
    """Without their folders."""
    return [plain_name(scene) for scene in scenes]


def test_what_the_generator_writes_is_what_a_sample_shows(written):
    scene = scene_of(written, "bird", 2 * PATHS)
    assert scene.frames == FRAMES
    truth = trace(draw_scenes([1], moving=True), [scene_paths(1, FRAMES, HEIGHT, WIDTH, "large")[1]],
                  torch.linspace(0, 1, FRAMES))  # fmt: skip
    shown = scene.pictures(1, [7, 2])
    assert (shown - truth.rgb[0, [7, 2]]).abs().mean() < 0.03
    assert torch.allclose(scene.cameras(1).c2w, scene_paths(1, FRAMES, HEIGHT, WIDTH, "large")[1].c2w)
    depth, expected = scene.depth(1, [7, 2]), truth.depth[0, [7, 2]]
    assert torch.equal(depth == 0, expected.isinf())
    known = expected.isfinite()
    assert torch.allclose(depth[known], expected[known], rtol=1e-3)
    assert scene.latents(1).shape == (16, 2, 4, 6)


def test_latents_of_both_forms_are_the_same(root):
    ours = scene_of(root, "bird").latents(0)
    for file in root.glob("*/latent/*.safetensors"):
        file.unlink()
    assert torch.equal(scene_of(root, "bird").latents(0), ours)


def test_flipped_views_agree_with_the_forward_ones_at_every_time(written, warp_error):
    for name in NAMES[:2]:
        scene = scene_of(written, name, 2 * PATHS)
        for path in range(PATHS):
            cameras, twins = scene.cameras(path), scene.cameras(PATHS + path)
            for time in (1, 4, 7):
                first, second = (
                    (scene.pictures(view, [time])[0], scene.depth(view, [time])[0]) for view in (path, PATHS + path)
                )
                here, there = cameras[time : time + 1], twins[time : time + 1]
                seen, error = warp_error(*first, here, *second, there)
                assert seen > 0.25 and error < 0.03
                if time != 4:  # in the middle both stand at nearly one place
                    unflipped = twins[FRAMES - 1 - time : FRAMES - time]  # as the reference saves it
                    assert warp_error(*first, here, *second, unflipped)[0] < 0.6 * seen


@pytest.mark.parametrize("stage", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_sample_of_a_stage(written, tmp_path, everything, stage):
    data = SdgDataset([written], stage, state=tmp_path, paths=PATHS)
    assert data.scenes == [f"{written}/{name}" for name in sorted(NAMES)] and len(data) == 4
    for position in range(6):
        sample = data.sample(position)
        views = len(sample.cameras)
        assert 1 <= views <= PATHS and sample.latents.shape == (views, 16, 2, 4, 6) and sample.pictures is None
        assert torch.allclose(sample.cameras[0].c2w[0], torch.eye(4), atol=1e-6)
        count = 2 * PATHS if stage.dynamic else 2 * views
        assert sample.targets.shape == (count, HEIGHT, WIDTH, 3) and len(sample.target_cameras) == count
        assert (sample.time is None) != stage.dynamic and sample.times.tolist()[::8] == [0, 1]
        assert (sample.depth > 0).float().mean() > 0.5


def test_targets_are_the_pictures_of_their_cameras(written, tmp_path, everything):
    """Every target, traced along its stored camera at its time, is what the sample shows."""
    data = SdgDataset([written], DYNAMIC, state=tmp_path, paths=PATHS)
    for position in range(4):
        sample = data.sample(position)
        seed = NAMES.index(plain_name(sample.scene))
        time = sample.time.expand(2 * PATHS)
        first = scene_of(written, NAMES[seed]).cameras(0).c2w[0]  # all paths start at one camera
        path = replace(sample.target_cameras, c2w=first @ sample.target_cameras.c2w)
        truth = trace(draw_scenes([seed] * 1, moving=True), [path], time).rgb[0]
        assert (truth - sample.targets).abs().mean() < 0.03


def test_other_frames_than_the_whole_clip_are_given_as_pictures(written, tmp_path, everything):
    stage = replace(STATIC, input_frames=5, encodes_frames=True, size=(16, 24))
    sample = SdgDataset([written], stage, state=tmp_path / "a", paths=PATHS).sample(0)
    assert sample.latents is None and sample.pictures.shape[1:] == (5, 16, 24, 3)
    assert sample.cameras[0].width == 24 and sample.cameras[0].K[0, 0, 2] == 12
    shorter = replace(STATIC, input_frames=5)
    with pytest.raises(RuntimeError, match="10 scenes in a row are broken"):
        SdgDataset([written], shorter, state=tmp_path / "c", paths=PATHS).sample(0)
    longer = replace(STATIC, input_frames=17, encodes_frames=True)  # mirrored
    sample = SdgDataset([written], longer, state=tmp_path / "d", paths=PATHS).sample(0)
    assert sample.pictures.shape[1] == 17


def test_a_position_is_one_sample_and_an_epoch_shows_each_scene_once(written, tmp_path, everything):
    one, two = (SdgDataset([written], STATIC, state=tmp_path / n, paths=PATHS, seed=3) for n in "ab")
    first = [one.sample(position) for position in range(8)]
    for position in (6, 2):  # in another order, by another process
        assert torch.equal(two.sample(position).targets, first[position].targets)
    orders = [[sample.scene for sample in first[i : i + 4]] for i in (0, 4)]
    assert sorted(names(orders[0])) == sorted(names(orders[1])) == sorted(NAMES)
    other = SdgDataset([written], STATIC, state=tmp_path / "c", paths=PATHS, seed=4)
    assert [other.sample(position).scene for position in range(8)] != sum(orders, [])


def test_a_broken_file_is_named_and_its_scene_gives_way(root, tmp_path, caplog, monkeypatch, everything, damaged):
    file, damage = damaged
    monkeypatch.chdir(tmp_path)
    for path in [path for path in root.rglob("*.*") if path.stem in NAMES[2:]]:
        path.unlink()  # two scenes are enough, and read in half the time
    damage(root)
    stage = replace(STATIC, target_frames=FRAMES)  # so that every frame's depth is looked at
    with pytest.raises(BrokenScene) as caught:
        scene = scene_of(root, "bird")
        scene.latents(0), scene.pictures(0, range(FRAMES)), scene.depth(0, range(FRAMES)), scene.cameras(0)
    assert caught.value.scene == "bird" and caught.value.file == file and "scene bird: " + file in str(caught.value)
    data = SdgDataset([root], stage, state=tmp_path / "state", paths=PATHS)
    with caplog.at_level(logging.WARNING, "lyra"):
        shown = [data.sample(position).scene for position in range(6)]
    bird = f"{root}/bird"
    broken = data.failures[bird]
    assert len(shown) == 6 and data.failures.keys() == {bird} and set(broken) == {file} and file in caplog.text
    assert json.loads((tmp_path / "state" / "quarantine.json").read_text())[bird] == {file: data.strikes(bird)}
    assert not Path("stolen").exists()
    if bird not in shown:  # every draw of it failed: three strikes, and the next run does not try it again
        assert data.strikes(bird) == 3
        again = SdgDataset([root], stage, state=tmp_path / "state", paths=PATHS)
        assert again.strikes(bird) == 3 and bird not in [again.sample(p).scene for p in range(4)]
        assert again.failed == 0


def test_permuted_frame_numbers_are_followed(root, written, change_arrays):
    order = np.random.RandomState(0).permutation(FRAMES)
    change_arrays(root, "0/pose/bird.npz", lambda a: {"data": a["data"][order], "inds": a["inds"][order]})
    assert torch.equal(scene_of(root, "bird").cameras(0).c2w, scene_of(written, "bird").cameras(0).c2w)


def test_a_shorter_view_shortens_the_scene(root, change_arrays):
    change_arrays(root, "1/pose/bird.npz", lambda a: {"data": a["data"][:6], "inds": a["inds"][:6]})
    scene = scene_of(root, "bird")
    assert scene.frames == 6 == len(scene.cameras(0))


def test_a_depth_map_that_is_missing_in_mid_clip_costs_no_scene(root, written, tmp_path, everything, lose_depth):
    lose_depth(root)
    found, whole = (scene_of(folder, "bird").depth(0, range(FRAMES)) for folder in (root, written))
    gone = (found != whole).flatten(1).any(1)
    assert gone.sum() == 1 and not gone[0] and not gone[-1] and (found[gone] == 0).all()
    data = SdgDataset([root], replace(STATIC, target_frames=FRAMES), state=tmp_path / "state", paths=PATHS)
    assert f"{root}/bird" in {data.sample(position).scene for position in range(12)}
    assert not data.failures


def test_without_depth_nothing_is_known_of_it(root, tmp_path, everything):
    for file in root.glob("*/depth/*"):
        file.unlink()
    sample = SdgDataset([root], STATIC, state=tmp_path / "state", paths=PATHS).sample(0)
    assert (sample.depth == 0).all() and sample.targets.mean() > 0.1


def test_scenes_with_missing_files_are_listed_and_left_out(root, tmp_path, everything):
    (root / "1/rgb/bird.mp4").unlink()
    for file in root.glob("0/latent/cloud.*"):
        file.unlink()
    data = SdgDataset([root], STATIC, state=tmp_path / "a", paths=PATHS)
    assert data.missing == {f"{root}/bird": ["1/rgb"], f"{root}/cloud": ["0/latent"]}
    assert names(data.scenes) == ["apple", "door"]
    encoding = SdgDataset([root], replace(STATIC, encodes_frames=True), state=tmp_path / "b", paths=PATHS)
    assert encoding.missing == {f"{root}/bird": ["1/rgb"]}
    assert all(encoding.sample(position).latents is None for position in range(12))
    shutil.rmtree(root / "1")
    with pytest.raises(ValueError, match="no scene of the split 'train' is whole: 4 found, 4 with files missing"):
        SdgDataset([root], STATIC, state=tmp_path / "c", paths=PATHS)


def test_scenes_that_all_fall_into_another_split_are_told_so(root, tmp_path, monkeypatch):
    monkeypatch.setitem(module.SHARES, "test", 1e9)
    with pytest.raises(ValueError, match="none of the 4 scenes .* falls into the split 'train', .* another name"):
        SdgDataset([root], STATIC, state=tmp_path / "state", paths=PATHS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_a_name_like_any_other(root, tmp_path, everything):
    for file in root.rglob("bird.*"):
        os.rename(file, os.fsencode(file.parent) + b"/b\xffrd" + os.fsencode(file.suffix))
    data = SdgDataset([root], DYNAMIC, state=tmp_path / "state", paths=PATHS)
    shown = {data.sample(position).scene for position in range(4)}
    assert f"{root}/b\udcffrd" in shown and not data.failures
    assert f"{root}/b\udcffrd" in SdgDataset([root], DYNAMIC, state=tmp_path / "state", paths=PATHS).scenes


def test_one_name_in_two_folders_is_two_scenes_of_one_split(written, root, tmp_path, monkeypatch, everything):
    other = root / "more"
    write_scene(other, "bird", 9)
    (other / "0/latent/bird.pkl").unlink(), (other / "1/rgb/bird.mp4").unlink()
    for roots in ([root], [root, other], [other, root]):
        found = find_members(roots)
        assert len(found) == 5 and found[f"{root}/bird"].keys() == find_members([written])[f"{written}/bird"].keys()
        assert (1, "rgb") not in found[f"{other}/bird"]
    assert SdgDataset([root], STATIC, state=tmp_path / "a", paths=PATHS).missing == {f"{other}/bird": ["1/rgb"]}
    shutil.copytree(written, tmp_path / "again")
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    monkeypatch.setattr(module, "split_scenes", partial(split_scenes, shares=shares))
    drawn = {}
    for split in {hashed_split(name, shares) for name in NAMES}:
        data = SdgDataset([tmp_path / "again", written], STATIC, state=tmp_path / "b", paths=PATHS, split=split)
        drawn[split] = names(data.scenes)
    assert sorted(sum(drawn.values(), [])) == sorted(2 * NAMES) and len(drawn) > 1
    assert not set.intersection(*map(set, drawn.values()))


@pytest.mark.parametrize("prefix", ["", "static/diffusion_output/"])
def test_tars_are_read_without_unpacking(written, tmp_path, everything, prefix):
    with tarfile.open(tmp_path / "part1.tar", "w") as one, tarfile.open(tmp_path / "part2.tar", "w") as two:
        for view in range(2 * PATHS):
            (one if view % 2 else two).add(written / str(view), f"{prefix}{view}")
    plain = SdgDataset([written], DYNAMIC, state=tmp_path / "a", paths=PATHS)
    for roots in ([tmp_path / "part1.tar", tmp_path / "part2.tar"], [tmp_path]):
        packed = SdgDataset(roots, DYNAMIC, state=tmp_path / "b", paths=PATHS)
        for position in range(2):
            found, expected = packed.sample(position), plain.sample(position)
            assert torch.equal(found.targets, expected.targets) and torch.equal(found.latents, expected.latents)
            assert torch.equal(found.depth, expected.depth)
    assert len(list((tmp_path / "b").glob("part?.tar.*.json"))) == 2  # their tables of contents, kept


@pytest.mark.parametrize("kind", ["folder", "tars", "packed"])
def test_what_lies_at_a_url_is_read_as_a_folder_is(written, tmp_path, everything, kind):
    memory = fsspec.filesystem("memory")
    url = f"memory://{kind}/data"
    if kind == "folder":
        memory.put(f"{written}/", f"/{kind}/data/", recursive=True)
    else:
        for part in range(2):  # the views of a scene in both
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "packed" and part else "w") as tar:
                for view in range(part, 2 * PATHS, 2):
                    tar.add(written / str(view), f"some/where/{view}")
            ending = "tgz" if kind == "packed" and part else "tar"  # one of each: a scene's files have one home
            memory.pipe_file(f"/{kind}/data/part{part}.{ending}", buffer.getvalue())
    roots = [f"{url}/part0.tar", f"{url}/part1.tgz"] if kind == "packed" else [url]
    plain = SdgDataset([written], DYNAMIC, state=tmp_path / "a", paths=PATHS)
    for state in ("b", "b"):  # tables of contents are kept
        there = SdgDataset(roots, DYNAMIC, state=tmp_path / state, paths=PATHS)
        assert names(there.scenes) == names(plain.scenes)
        for position in range(2):
            found, expected = there.sample(position), plain.sample(position)
            assert torch.equal(found.targets, expected.targets) and torch.equal(found.latents, expected.latents)
            assert torch.equal(found.depth, expected.depth)


def test_a_file_at_a_url_that_was_cut_short_is_set_aside(written, tmp_path, everything):
    memory = fsspec.filesystem("memory")
    memory.put(f"{written}/", "/short/data/", recursive=True)
    data = SdgDataset(["memory://short/data"], STATIC, state=tmp_path, paths=PATHS)
    name = data._scene(0, 0)
    memory.pipe_file(f"/short/data/0/rgb/{plain_name(name)}.mp4", b"half")
    assert data.sample(0).scene != name and data.strikes(name) >= 1


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar", "w:xz")]
)
def test_compressed_tars_are_made_plain_once(written, tmp_path, everything, suffix, mode):
    with tarfile.open(tmp_path / f"part.{suffix}", mode) as tar:
        for view in range(2 * PATHS):
            tar.add(written / str(view), f"dynamic/diffusion_output/{view}")
    plain = SdgDataset([written], DYNAMIC, state=tmp_path / "a", paths=PATHS)
    for state in ("b", "b"):
        packed = SdgDataset([tmp_path / f"part.{suffix}"], DYNAMIC, state=tmp_path / state, paths=PATHS)
        assert names(packed.scenes) == names(plain.scenes)
        assert {scene.rpartition("/")[0] for scene in packed.scenes} == {f"{tmp_path}/dynamic/diffusion_output"}
        found, expected = packed.sample(0), plain.sample(0)
        assert torch.equal(found.targets, expected.targets) and torch.equal(found.depth, expected.depth)
    (kept,) = (tmp_path / "b").glob("*.plain")
    assert tarfile.is_tarfile(kept)
    with pytest.raises(ValueError, match="a compressed tar file; unpack it"):
        find_members([tmp_path / f"part.{suffix}"])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data[:40] + b"noise" + data[45:]])
def test_a_compressed_tar_that_is_damaged_is_named_and_leaves_nothing(tmp_path, pack, spoil):
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        tar.add(Path(__file__), "0/rgb/clip.mp4")
    (tmp_path / "part.tar.gz").write_bytes(spoil(pack((tmp_path / "whole.tar").read_bytes())))
    with pytest.raises(ValueError, match="part.tar.gz: damaged, or cut short"):
        find_members([tmp_path / "part.tar.gz"], tmp_path / "state")
    assert not list((tmp_path / "state").glob("*"))


def test_an_archive_that_cannot_be_read_here_says_how_to_unpack_it(tmp_path):
    (tmp_path / "part.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(8))
    with pytest.raises(ValueError, match="part.tar.zst: compressed with Zstandard, .* unpack it"):
        find_members([tmp_path], tmp_path / "state")


def test_a_tar_that_was_cut_short_or_packed_is_named(written, tmp_path):
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        tar.add(written / "0", "0")
    members = find_members([tmp_path / "whole.tar"], tmp_path / "cache")
    data = (tmp_path / "whole.tar").read_bytes()
    bird = members[f"{tmp_path}/bird"]
    last = max(bird.values(), key=lambda member: member.offset)
    (tmp_path / "whole.tar").write_bytes(data[: last.offset + 5])
    scene = SdgScene("bird", bird, PATHS, [0], FRAMES)
    with pytest.raises(BrokenScene, match="ends .* bytes before its member"):
        scene.depth(0, [0]), scene.latents(0), scene.pictures(0, [0]), scene.cameras(0)
    (tmp_path / "noise.tar").write_bytes(b"noise" * 500)
    with pytest.raises(ValueError, match="noise.tar: not a tar file, or a damaged one"):
        find_members([tmp_path / "noise.tar"])


def test_too_many_broken_scenes_end_the_run(root, tmp_path, monkeypatch, everything):
    monkeypatch.setattr(module, "ENOUGH", 10)
    for name in NAMES[:2]:
        (root / f"0/pose/{name}.npz").write_bytes(b"")
    data = SdgDataset([root], STATIC, state=tmp_path / "state", paths=PATHS)
    with pytest.raises(RuntimeError, match=r"of 1\d draws failed, the last with: scene .*; repair or remove"):
        for position in range(60):
            data.sample(position)


def test_splits_share_no_scene_and_stay_as_they_were(tmp_path):
    names = [f"scene-{i}" for i in range(2000)]
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    first = split_scenes(names[:1500], tmp_path / "splits.json", shares)
    later = split_scenes(names, tmp_path / "splits.json", {"train": 0.0, "validation": 0.0, "test": 1.0})
    assert sorted(sum(first.values(), [])) == sorted(names[:1500]) and sorted(sum(later.values(), [])) == sorted(names)
    for split in shares:
        assert set(first[split]) <= set(later[split])
        assert abs(len(first[split]) / 1500 - shares[split]) < 0.04
    assert set(names[1500:]) <= set(later["test"])
    assert split_scenes(names[:3], tmp_path / "other.json", shares) == {
        split: [n for n in names[:3] if hashed_split(n, shares) == split] for split in shares
    }


def test_a_missing_root_and_an_empty_one_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or tar"):
        find_members([tmp_path / "missing"])
    with pytest.raises(FileNotFoundError, match="holds no files <view>/<kind>/<scene>"):
        find_members([tmp_path])


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"[1]", b"\xff\x00"])
def test_a_damaged_split_manifest_is_named(tmp_path, data):
    (tmp_path / "splits.json").write_bytes(data)
    with pytest.raises(ValueError, match="splits.json: .") as raised:
        split_scenes(["a"], tmp_path / "splits.json")
    assert "\n" not in str(raised.value)
