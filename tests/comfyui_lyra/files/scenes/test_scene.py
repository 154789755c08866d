from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.cameras.npz import save_cameras_npz
from lyra_pack.comfyui_lyra.files.scenes.latents import save_latents
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene, save_scene
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents


@pytest.fixture
def scene(two_paths) -> MultiViewLatents:
    """Two views of nine frames of 16x32, of a moving source."""
    paths = (two_paths[0][:9], replace(two_paths[0][3:], name="left"))
    values = torch.randn(2, 16, 2, 2, 4, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(
        latents=VideoLatents(values=values), cameras=paths, family="mini", dynamic=True, provenance={"seed": "1"}
    )


def same(found: MultiViewLatents, expected: MultiViewLatents) -> None:
    assert torch.equal(found.latents.values, expected.latents.values)
    assert (found.family, found.dynamic, found.provenance) == (expected.family, expected.dynamic, expected.provenance)
    for a, b in zip(found.cameras, expected.cameras, strict=True):
        assert a.name == b.name and torch.equal(a.c2w, b.c2w) and torch.equal(a.K, b.K)


def test_a_scene_comes_back_from_a_folder_and_from_a_file(tmp_path, scene):
    save_scene(tmp_path / "out", "night", scene)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["0", "1"]
    assert not list((tmp_path / "out").rglob("*.pkl")) + list((tmp_path / "out").rglob("*.mp4"))
    same(load_scene(tmp_path / "out"), scene)
    same(load_scene(tmp_path / "out", "night"), scene)
    save_latents(tmp_path / "one.safetensors", scene)
    same(load_scene(tmp_path / "one.safetensors"), scene)


def test_the_references_form_is_there_on_request(tmp_path, scene):
    save_scene(tmp_path / "out", "night", scene, reference_format=True)
    for view, values in enumerate(scene.latents.values):
        assert torch.equal(load_latent_pkl(tmp_path / "out" / str(view) / "latent" / "night.pkl"), values)
    raw = replace(scene, latents=replace(scene.latents, space="tokenizer"))
    with pytest.raises(ValueError, match="in diffusion space; these are in tokenizer space"):
        save_scene(tmp_path / "raw", "night", raw, reference_format=True)


def test_the_reference_does_not_say_whether_the_source_moved(tmp_path, scene):
    for view, path in enumerate(scene.cameras):
        save_latent_pkl(tmp_path / str(view) / "latent" / "night.pkl", scene.latents.values[view])
        save_cameras_npz(
            tmp_path / str(view) / "pose" / "night.npz", tmp_path / str(view) / "intrinsics" / "night.npz", path
        )
    for dynamic in (False, True):
        found = load_scene(tmp_path, dynamic=dynamic)
        assert torch.equal(found.latents.values, scene.latents.values)
        assert (found.dynamic, found.family) == (dynamic, "lyra")
        assert (found.cameras[1].height, found.cameras[1].width, found.cameras[1].name) == (16, 32, "1")


def test_another_scene_does_not_replace_one(tmp_path, scene):
    save_scene(tmp_path / "out", "night", scene)
    save_scene(tmp_path / "out", "night", scene)
    other = replace(scene, latents=replace(scene.latents, values=scene.latents.values + 1))
    with pytest.raises(ValueError, match="made with other latents; choose another name"):
        save_scene(tmp_path / "out", "night", other)
