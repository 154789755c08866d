import json
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents, save_latents
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from safetensors.torch import save_file


@pytest.fixture
def latents(two_paths) -> MultiViewLatents:
    values = torch.randn(2, 16, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(
        latents=VideoLatents(values=values, space="tokenizer"),
        cameras=two_paths,
        family="mini",
        dynamic=True,
        provenance={"model": "é0123", "seed": "7"},
    )


def same_latents(found: MultiViewLatents, expected: MultiViewLatents, same_path) -> None:
    assert torch.equal(found.latents.values, expected.latents.values)
    assert found.latents.values.dtype == expected.latents.values.dtype
    assert found.latents.space == expected.latents.space
    for field in ("family", "dynamic", "provenance"):
        assert getattr(found, field) == getattr(expected, field)
    for path, wanted in zip(found.cameras, expected.cameras, strict=True):
        same_path(path, wanted)


def test_latents_survive_bit_for_bit(tmp_path, latents, same_path):
    save_latents(tmp_path / "scene.safetensors", latents)
    same_latents(load_latents(tmp_path / "scene.safetensors"), latents, same_path)


def test_half_precision_views_of_a_larger_tensor_and_shared_cameras_survive(tmp_path, latents, same_path):
    values = latents.latents.values.bfloat16()[:, :, :2].transpose(3, 4)
    cameras = (latents.cameras[0], replace(latents.cameras[0], name="twin", fps=12.5))
    shared = replace(latents, latents=VideoLatents(values=values), cameras=cameras, dynamic=False)
    save_latents(tmp_path / "scene.safetensors", shared)
    same_latents(load_latents(tmp_path / "scene.safetensors"), shared, same_path)


def test_other_files_are_one_sentence(tmp_path, latents):
    path = tmp_path / "scene.safetensors"
    with pytest.raises(FileNotFoundError, match="scene.safetensors: no such file"):
        load_latents(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="scene.safetensors: not a safetensors file, or cut short"):
        load_latents(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="expected format 'lyra-latents' in the metadata, got None"):
        load_latents(path)
    save_latents(path, latents)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="cut short"):
        load_latents(path)
    about = {"format": "lyra-latents", "version": "1", "about": json.dumps({"paths": []})}
    save_file({"values": torch.zeros(1)}, path, about)
    with pytest.raises(ValueError, match="incomplete latents: 'space'"):
        load_latents(path)
