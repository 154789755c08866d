import copy
from dataclasses import replace

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.files.cameras.npz import save_cameras_npz  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import load_latent_pkl, save_latent_pkl  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer import model as tokenizer_model  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer.clips import decode  # noqa: E402
from lyra_pack.nodes.comfy import progress  # noqa: E402
from lyra_pack.nodes.comfy.patchers import Model, in_core  # noqa: E402
from lyra_pack.nodes.latents.latents import DecodeLatents, LatentsFromCore, LatentsToCore, LoadLatents, SaveLatents
from lyra_pack.nodes.splats.load import LoadCameraPaths  # noqa: E402


def same(found, expected) -> bool:
    return (
        torch.equal(found.latents.values, expected.latents.values)
        and (found.family, found.dynamic) == (expected.family, expected.dynamic)
        and [path.name for path in found.cameras] == [path.name for path in expected.cameras]
        and all(torch.equal(a.c2w, b.c2w) for a, b in zip(found.cameras, expected.cameras, strict=True))
    )


def test_saved_latents_load_again_by_what_the_node_shows(folders, tiny_scene):
    result = SaveLatents.execute(tiny_scene, "lyra/room", "night", False)
    assert result.args == () and result.ui == {"text": ("2 paths: lyra/room_00001_",)}
    assert LoadLatents.validate_inputs("lyra/room_00001_") is True
    (loaded,) = LoadLatents.execute("lyra/room_00001_", "", False).args
    assert same(loaded, tiny_scene)
    SaveLatents.execute(tiny_scene, "lyra/room", "night", True)  # the next number, not the same folder
    pkl = folders / "output" / "lyra" / "room_00002_" / "1" / "latent" / "night.pkl"
    assert torch.equal(load_latent_pkl(pkl), tiny_scene.latents.values[1])


def test_the_references_folders_load_from_the_input_folder(folders, tiny_scene):
    for view, path in enumerate(tiny_scene.cameras):
        root = folders / "input" / "sdg" / str(view)
        save_latent_pkl(root / "latent" / "clip.pkl", tiny_scene.latents.values[view])
        save_cameras_npz(root / "pose" / "clip.npz", root / "intrinsics" / "clip.npz", path)
    before = LoadLatents.fingerprint_inputs("sdg", "", True)
    (loaded,) = LoadLatents.execute("sdg", "clip", True).args
    assert loaded.dynamic and loaded.family == "lyra"
    assert torch.equal(loaded.latents.values, tiny_scene.latents.values)
    save_latent_pkl(folders / "input" / "sdg" / "1" / "latent" / "clip.pkl", tiny_scene.latents.values[0])
    assert LoadLatents.fingerprint_inputs("sdg", "", True) != before
    assert "'gone' is neither in" in LoadLatents.validate_inputs("gone")


def test_a_moving_sources_folder_brings_its_six_paths_and_says_so(folders, tiny_scene, monkeypatch):
    for view in range(12):
        root = folders / "input" / "example" / str(view)
        save_latent_pkl(root / "latent" / "clip.pkl", tiny_scene.latents.values[0] + view)
        save_cameras_npz(root / "pose" / "clip.npz", root / "intrinsics" / "clip.npz", tiny_scene.cameras[0])
    told = []
    monkeypatch.setattr(progress, "show_text", lambda node, text: told.append(text))
    (loaded,) = LoadLatents.execute("example", "", True).args
    assert len(loaded.cameras) == 6
    assert torch.equal(loaded.latents.values[5], tiny_scene.latents.values[0] + 5)
    size = loaded.cameras[0].width, loaded.cameras[0].height
    assert len(LoadCameraPaths.execute("example", *size, "").args[0]) == 6
    assert all(text.startswith("6 paths\n") and "time-flipped twins, left out" in text for text in told)
    assert len(told) == 2


def test_latents_go_to_core_and_come_back(tiny_scene):
    latent, cameras = LatentsToCore.execute(tiny_scene).args
    assert torch.equal(latent["samples"], tiny_scene.latents.values)
    (back,) = LatentsFromCore.execute(latent, cameras, True, "tiny").args
    assert same(back, tiny_scene)


def test_what_is_no_latent_of_these_paths_is_refused(tiny_scene):
    latent, cameras = LatentsToCore.execute(tiny_scene).args
    with pytest.raises(ValueError, match=r"2 clips of latent size \(T, h, w\) \(2, 4, 6\) does not fit 1 camera paths"):
        LatentsFromCore.execute(latent, cameras[:1], False, "lyra")
    with pytest.raises(ValueError, match=r"does not fit 2 camera paths of 9 frames of 96x64, which make \(2, 8, 12\)"):
        LatentsFromCore.execute(latent, tuple(path.resized(64, 96) for path in cameras), False, "lyra")
    with pytest.raises(ValueError, match="this LATENT is no video of Cosmos"):
        LatentsFromCore.execute({"samples": torch.zeros(1, 4, 8, 8)}, cameras, False, "lyra")
    raw = replace(tiny_scene, latents=replace(tiny_scene.latents, space="tokenizer"))
    with pytest.raises(ValueError, match="in tokenizer space; core's are in diffusion space"):
        LatentsToCore.execute(raw)


def test_one_path_is_decoded(tiny_scene, tiny_tokenizer):
    model = Model(patcher=in_core(copy.deepcopy(tiny_tokenizer)), config=tiny_tokenizer.config, file="tiny")
    frames, fps = DecodeLatents.execute(tiny_scene, model, 1).args
    assert frames.shape == (9, 32, 48, 3) and fps == 24
    assert torch.equal(frames, decode(tiny_tokenizer, tiny_scene, 1))
    with pytest.raises(ValueError, match=r"path 2: the set holds 2 \(0 left, 1 right\)"):
        DecodeLatents.execute(tiny_scene, model, 2)
    with pytest.raises(ValueError, match="latents of family 'lyra' and tokenizer 'tiny' do not belong together"):
        DecodeLatents.execute(replace(tiny_scene, family="lyra"), model, 0)


def test_out_of_memory_is_tried_again_with_one_latent_frame_at_a_time(tiny_scene, tiny_tokenizer, monkeypatch, caplog):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.mean, tokenizer.std = torch.zeros(16, 3), torch.ones(16, 3)
    model = Model(patcher=in_core(tokenizer), config=tokenizer.config, file="tiny")
    values = tiny_scene.latents.values
    long = replace(
        tiny_scene,
        latents=replace(tiny_scene.latents, values=torch.cat((values, values[:, :, 1:]), 2)),
        cameras=tuple(replace(path, c2w=path.c2w[[0] * 17], K=path.K[[0] * 17]) for path in tiny_scene.cameras),
    )
    whole, tried, decode_frames = DecodeLatents.execute(long, model, 1).args[0], [], tokenizer_model.decode_frames

    def small(autoencoder, latents, past):
        tried.append(len(latents))
        if len(latents) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return decode_frames(autoencoder, latents, past)

    monkeypatch.setattr(tokenizer_model, "decode_frames", small)
    frames = DecodeLatents.execute(long, model, 1).args[0]
    torch.testing.assert_close(frames, whole, rtol=1e-4, atol=1e-4)
    assert tried == [1, 2, 1, 1, 1] and caplog.text.count("out of memory, trying again") == 1
