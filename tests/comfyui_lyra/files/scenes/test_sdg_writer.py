import json
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.npz import load_cameras_npz
from lyra_pack.comfyui_lyra.files.media.video import load_video
from lyra_pack.comfyui_lyra.files.scenes import sdg_manifest
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.sdg import find_clips, find_views, load_sdg
from lyra_pack.comfyui_lyra.files.scenes.sdg_manifest import Manifest
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import NumberedStore, PathStore, clip_name
from lyra_pack.comfyui_lyra.versions import pack_version

RECIPE = {"teacher": "a", "seed": "1"}
NUMBERS = 16 * 4 * 2 * 4  # of a path's latents


def brightening() -> torch.Tensor:
    """17 grey frames, each brighter than the one before."""
    return torch.linspace(0.1, 0.9, 17)[:, None, None, None].expand(-1, 16, 32, 3)


def never() -> torch.Tensor:
    raise AssertionError("no frames are wanted")


def fill(store: PathStore, scenes, frames=brightening, recipe=RECIPE, only=(0, 1)) -> None:
    store.begin(recipe, [scene.cameras[0] for scene in scenes], NUMBERS)
    for index in only:
        store.save(index, scenes[index], frames)


def files(root) -> list[str]:
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


def test_the_layout_is_the_references_and_holds_nothing_else(tmp_path, scenes, paths):
    root = tmp_path / "out"
    fill(PathStore(root, "night", reference_format=True), scenes)
    kinds = ("intrinsics/night.npz", "latent/night.pkl", "latent/night.safetensors", "pose/night.npz", "rgb/night.mp4")
    assert files(root) == [f"{view}/{kind}" for view in (0, 1) for kind in kinds]
    assert sorted(entry.name for entry in root.iterdir()) == ["0", "1"]  # its number is the number of views
    assert files(tmp_path / "out.lyra") == ["night.json"]
    assert find_clips(root) == ("night",) and len(find_views(root)) == 2
    for view, path, scene in zip(find_views(root), paths, scenes, strict=True):
        read = load_cameras_npz(view / "pose" / "night.npz", view / "intrinsics" / "night.npz", 16, 32)
        assert torch.equal(read.c2w, path.c2w) and torch.equal(read.K, path.K)
        frames, fps = load_video(view / "rgb" / "night.mp4")
        assert fps == 12 and (frames - brightening()).abs().max() < 0.02
        pkl = load_latent_pkl(view / "latent" / "night.pkl")  # what the reference saves of a long video
        assert torch.equal(pkl, scene.latents.values[0, :, :2])


def test_what_is_written_is_read_back_equal(tmp_path, scenes, paths):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes, frames=never)
    loaded = load_sdg(tmp_path / "out")
    assert torch.equal(loaded.latents.values, torch.cat([scene.latents.values for scene in scenes]))
    assert (loaded.family, loaded.dynamic, loaded.provenance, loaded.chunks) == ("mini", True, RECIPE, 2)
    for found, expected in zip(loaded.cameras, paths, strict=True):
        assert torch.equal(found.c2w, expected.c2w) and torch.equal(found.K, expected.K)
        assert (found.name, found.fps, found.height, found.width) == (expected.name, 12.0, 16, 32)


def test_a_stopped_clip_goes_on_where_it_was(tmp_path, scenes, paths):
    store = PathStore(tmp_path / "out", "night")
    store.begin(RECIPE, paths, NUMBERS)
    assert store.load(0) is None

    def stop() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        store.save(0, scenes[0], stop)
    with pytest.raises(ValueError, match="1 of the 2 paths of 'night' are finished; generate it once more"):
        load_sdg(tmp_path / "out")
    again = PathStore(tmp_path / "out", "night")
    again.begin(RECIPE, paths, NUMBERS)
    assert not (tmp_path / "out.lyra" / "night.unfinished").exists()
    assert torch.equal(again.load(0).latents.values, scenes[0].latents.values) and again.load(1) is None
    latents = again.file(0, "latent")
    written = latents.stat().st_mtime_ns
    fill(again, scenes)
    assert latents.stat().st_mtime_ns == written and again.file(0, "rgb").is_file()
    assert len(load_sdg(tmp_path / "out").cameras) == 2


def test_a_clip_of_other_making_is_refused(tmp_path, scenes):
    fill(PathStore(tmp_path / "out", "night"), scenes)
    with pytest.raises(ValueError, match="holds paths of 'night' made with other seed and text; .* 'night_2'"):
        fill(PathStore(tmp_path / "out", "night"), scenes, recipe={"teacher": "a", "seed": "2", "text": "b"})
    moved = tuple(replace(s, cameras=(replace(s.cameras[0], fps=24.0),)) for s in scenes)
    with pytest.raises(ValueError, match="made with other camera paths;"):
        fill(PathStore(tmp_path / "out", "night"), moved)
    (tmp_path / "out.lyra" / "night.json").unlink()
    with pytest.raises(ValueError, match="0/pose/night.npz is there and nothing says what it was made from"):
        fill(PathStore(tmp_path / "out", "night"), scenes)
    assert len(find_clips(tmp_path / "out")) == 1


def test_a_numbered_store_begins_at_the_first_name_that_fits(tmp_path, scenes):
    other = {"teacher": "a", "seed": "2"}
    for recipe in (RECIPE, other, RECIPE | {"seed": "3"}):
        fill(NumberedStore(tmp_path / "night"), scenes, recipe=recipe)
    store = NumberedStore(tmp_path / "night", rgb=False)
    fill(store, scenes, frames=never, recipe=other)
    assert (store.root, store.clip) == (tmp_path / "night_2", "night_2")
    fill(store, scenes, frames=never, recipe=other)  # once more, as after a lack of memory
    assert store.clip == "night_2"
    shutil.rmtree(tmp_path / "night")
    fill(NumberedStore(tmp_path / "night"), scenes[:1], recipe={"seed": "4"}, only=(0,))
    assert len(load_sdg(tmp_path / "night").cameras) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lyra") == ["night", "night_2", "night_3"]


def test_deleted_paths_may_be_made_anew_from_something_else(tmp_path, scenes):
    fill(PathStore(tmp_path / "out", "night"), scenes)
    shutil.rmtree(tmp_path / "out")
    fill(PathStore(tmp_path / "out", "night"), scenes[:1], recipe={"teacher": "a", "seed": "2", "text": "b"}, only=(0,))
    assert len(load_sdg(tmp_path / "out").cameras) == 1


def test_every_clip_of_a_folder_has_as_many_paths(tmp_path, scenes):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes, only=(0,))
    fill(PathStore(tmp_path / "out", "day", rgb=False), scenes)
    with pytest.raises(ValueError, match="holds clips of 2 camera paths, this one has 1; choose another folder"):
        fill(PathStore(tmp_path / "out", "noon"), scenes[:1], only=(0,))


def test_a_damaged_manifest_does_not_stop_other_clips(tmp_path, scenes, caplog):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes)
    (tmp_path / "out.lyra" / "night.json").write_text("{")
    fill(PathStore(tmp_path / "out", "day", rgb=False), scenes)
    assert len(load_sdg(tmp_path / "out", "day").cameras) == 2
    assert "night.json: not a manifest of generated paths" in caplog.text
    with pytest.raises(ValueError, match="night.json: not a manifest"):
        fill(PathStore(tmp_path / "out", "night", rgb=False), scenes)


def test_a_clip_is_begun_without_reading_the_manifests_of_all_others(tmp_path, scenes, monkeypatch):
    root, read = tmp_path / "out", []
    for index in range(12):
        fill(PathStore(root, f"clip{index}", rgb=False), scenes)
    reading = Manifest.read
    monkeypatch.setattr(Manifest, "read", lambda file: read.append(file) or reading(file))
    fill(PathStore(root, "last", rgb=False), scenes)
    assert len(read) <= 2


def test_of_other_clips_those_without_files_do_not_count(tmp_path, scenes, paths):
    root = tmp_path / "out"
    PathStore(root, "night").begin(RECIPE, paths, NUMBERS)
    fill(PathStore(root, "day"), scenes[:1], only=(0,))
    shutil.rmtree(root)
    fill(PathStore(root, "noon"), scenes)
    with pytest.raises(ValueError, match="holds clips of 2 camera paths"):
        fill(PathStore(root, "dusk"), scenes[:1], only=(0,))


def test_forward_paths_are_not_made_beside_the_flipped_ones_of_another_scene(tmp_path, scenes):
    root = tmp_path / "out"
    fill(PathStore(root, "night"), scenes)
    fill(PathStore(root, "night", flipped=True), scenes)
    for view in "01":
        shutil.rmtree(root / view)
    message = "2/pose/night.npz is a time-flipped path of 'night', whose .* are gone; delete its files in .* 2 to 3 too"
    for count in (2, 1):
        with pytest.raises(ValueError, match=message):
            fill(PathStore(root, "night"), scenes[:count], recipe={"teacher": "b"}, only=(0,))
    for file in root.rglob("night.*"):
        file.unlink()
    fill(PathStore(root, "night"), scenes, recipe={"teacher": "b"})


def test_a_full_disk_is_named_before_anything_runs(tmp_path, scenes, paths, monkeypatch):
    needed = 2 * (4 * NUMBERS + 17 * 16 * 32 // 2)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, needed - 1))
    with pytest.raises(ValueError, match=rf"out: {needed} bytes .* are needed and {needed - 1} .* are free; free some"):
        PathStore(tmp_path / "new" / "out", "night").begin(RECIPE, paths, NUMBERS)
    assert not list(tmp_path.iterdir())
    PathStore(tmp_path / "out", "night", rgb=False).begin(RECIPE, paths, NUMBERS)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, needed))
    fill(PathStore(tmp_path / "out", "night"), scenes)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 0))
    PathStore(tmp_path / "out", "night").begin(RECIPE, paths, NUMBERS)  # nothing is missing


def test_flipped_paths_are_saved_in_the_clips_own_time(tmp_path, scenes, paths):
    fill(PathStore(tmp_path / "out", "night"), scenes)
    fill(PathStore(tmp_path / "out", "night", flipped=True), scenes)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["0", "1", "2", "3"]
    for view, path in zip(find_views(tmp_path / "out")[2:], paths, strict=True):
        read = load_cameras_npz(view / "pose" / "night.npz", view / "intrinsics" / "night.npz", 16, 32)
        assert torch.equal(read.c2w, path.c2w.flip(0)) and not torch.equal(read.c2w, path.c2w)
        frames, _ = load_video(view / "rgb" / "night.mp4")
        assert (frames - brightening().flip(0)).abs().max() < 0.02
    loaded = load_sdg(tmp_path / "out")  # latents cannot be turned round: only the forward ones are inputs
    assert torch.equal(loaded.latents.values, torch.cat([scene.latents.values for scene in scenes]))
    fill(PathStore(tmp_path / "only", "night", flipped=True, rgb=False), scenes)
    with pytest.raises(ValueError, match="'night' has time-flipped paths only; generate the forward ones too"):
        load_sdg(tmp_path / "only")


def test_names_are_made_fit_for_files():
    assert clip_name("photo 1") == "photo-1"
    assert clip_name("photo", "a cat / a dog: 5 %?", 3) == "photo_a-cat-a-dog-5_3"
    assert len(clip_name("x", "y" * 500)) == 120 and clip_name("...") == "clip"
    assert (clip_name("CON"), clip_name("nul.png")) == ("CON_", "nul-png_")
    for bad in ("a/b", "..", "", "a:b", ".hidden", "CON", "a."):
        with pytest.raises(ValueError, match="cannot be the name of a clip's files: .*; use '"):
            PathStore("out", bad)


def test_a_damaged_manifest_is_named(tmp_path, scenes):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes)
    manifest = tmp_path / "out.lyra" / "night.json"
    for damaged in ("{", "[]", '{"format": "lyra-sdg", "version": "2"}', '{"format": "lyra-sdg", "version": "1"}'):
        manifest.write_text(damaged)
        with pytest.raises(
            ValueError, match="night.json: not a manifest of generated paths .*; delete it and its clip"
        ):
            Manifest.read(manifest)


def test_what_was_stored_before_results_had_a_number_is_taken_over(tmp_path, scenes, paths):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes, frames=never)
    now = PathStore(tmp_path / "out", "night", rgb=False)
    now.begin(RECIPE | {"results": "1"}, paths, NUMBERS)
    assert now.load(1) is not None
    with pytest.raises(ValueError, match="made with other results; choose another name"):
        now.begin(RECIPE | {"results": "2"}, paths, NUMBERS)


def test_the_packs_version_is_noted_and_nothing_depends_on_it(tmp_path, scenes, monkeypatch):
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes, frames=never)
    stored = json.loads((tmp_path / "out.lyra" / "night.json").read_text())
    assert stored["pack"] == pack_version()
    monkeypatch.setattr(sdg_manifest, "pack_version", lambda: "99")
    fill(PathStore(tmp_path / "out", "night", rgb=False), scenes, frames=never)


def resumed(store: NumberedStore, paths, recipe=RECIPE) -> list[bool]:
    """Which paths need not be made."""
    store.begin(recipe, paths, NUMBERS)
    return [store.load(index) is not None for index in range(len(paths))]


def test_finished_paths_are_taken_over_under_another_name(tmp_path, scenes, paths):
    fill(NumberedStore(tmp_path / "scene"), scenes, only=(1,))
    castle = NumberedStore(tmp_path / "castle", search=tmp_path)
    assert resumed(castle, paths) == [False, True]
    assert torch.equal(castle.load(1).latents.values, scenes[1].latents.values)
    castle.save(1, castle.load(1), never)  # the video came along
    assert files(tmp_path / "castle") == [f"1/{kind}" for kind in (
        "intrinsics/castle.npz", "latent/castle.safetensors", "pose/castle.npz", "rgb/castle.mp4"
    )]  # fmt: skip
    assert files(tmp_path / "scene") and load_sdg(tmp_path / "castle" / "1", "castle")
    other = {"teacher": "b", "seed": "1"}
    assert resumed(NumberedStore(tmp_path / "other", search=tmp_path), paths, other) == [False] * 2
    assert resumed(NumberedStore(tmp_path / "anew"), paths) == [False] * 2


def test_finished_paths_are_found_in_a_folder_that_was_renamed(tmp_path, scenes, paths):
    fill(NumberedStore(tmp_path / "scene"), scenes)
    (tmp_path / "scene").rename(tmp_path / "deeper")
    assert resumed(NumberedStore(tmp_path / "scene", search=tmp_path), paths) == [True, True]
    shutil.rmtree(tmp_path / "scene")
    shutil.rmtree(tmp_path / "scene.lyra")
    store = NumberedStore(tmp_path / "deeper", search=tmp_path)  # a person says the new name too
    assert resumed(store, paths) == [True, True] and (store.root.name, store.clip) == ("deeper", "scene")
    store.save(0, store.load(0), never)
    assert find_clips(tmp_path / "deeper") == ("scene",)
    other = NumberedStore(tmp_path / "deeper", search=tmp_path)
    assert resumed(other, paths, {"teacher": "b", "seed": "1"}) == [False, False] and other.root.name == "deeper_2"


def test_files_that_cannot_be_read_are_no_finished_paths(tmp_path, scenes, paths):
    fill(NumberedStore(tmp_path / "scene", rgb=False), scenes)
    (tmp_path / "scene" / "0" / "latent" / "scene.safetensors").write_bytes(b"half a file")
    (tmp_path / "scene" / "0" / "latent" / "other.safetensors").write_bytes(b"")
    assert resumed(NumberedStore(tmp_path / "castle", rgb=False, search=tmp_path), paths) == [False, True]


def test_a_clip_of_a_folder_of_many_is_found_under_another_name(tmp_path, scenes, paths):
    fill(PathStore(tmp_path / "out", "night"), scenes)
    assert resumed(PathStore(tmp_path / "out", "day", search=tmp_path / "out"), paths) == [True, True]
