"""The shipped tokenizer and decoder, refined by the shell: one short path around a scene that was filmed."""

import re

import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import save_cameras_json
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import save_latents
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct
from lyra_pack.comfyui_lyra.tokenizer.clips import encode_clip
from lyra_pack.comfyui_lyra.tokenizer.model import load_tokenizer
from lyra_pack.comfyui_lyra.training.data.clips import to_video
from lyra_pack.comfyui_lyra.training.world.draw_scenes import draw_scenes, scene_paths, source_geometry
from lyra_pack.comfyui_lyra.training.world.raytrace import trace
from lyra_pack.comfyui_lyra.weights.shipped import shipped_model

SEED, FRAMES, SIZE = 800_005, 17, (96, 160)


@pytest.mark.slow
@torch.no_grad()
def test_the_shipped_models_splats_become_sharper(tmp_path, monkeypatch, capsys, long):
    monkeypatch.chdir(tmp_path)
    scene, paths = draw_scenes([SEED]), scene_paths(SEED, FRAMES, *SIZE)[:1]
    film = trace(scene, paths, torch.zeros(FRAMES), supersample=1).rgb
    tokenizer = load_tokenizer(shipped_model("tokenizer")).float()
    latents = MultiViewLatents(
        latents=VideoLatents(values=encode_clip(tokenizer, to_video((film * 255).byte()))),
        cameras=paths, family=tokenizer.family, dynamic=False,
    )  # fmt: skip
    splats, cameras = reconstruct(load_recon(shipped_model("recon_static")).float(), tokenizer, latents, (0,))
    save_latents("latents.safetensors", latents)
    save_ply("scene.ply", splats.frames[0])
    save_cameras_json("cameras.json", cameras)
    save_geometry("geometry.safetensors", source_geometry(scene, *SIZE))
    words = ["refine", "scene.ply", "out.ply", "--latents", "latents.safetensors", "--geometry", "geometry.safetensors"]
    words += ["--tokenizer", str(shipped_model("tokenizer")), "--device", "cpu", "--dtype", "float32"]
    assert main([*words, "--steps", "30" if long else "4"]) == 0, capsys.readouterr().err
    numbers = re.search(r"first picture (.*) -> (.*) dB, .* (.*) -> (.*) dB", capsys.readouterr().out.splitlines()[-1])
    first, second, third, fourth = map(float, numbers.groups())
    assert second > first + (2 if long else 0.2) and (fourth > third or not long)
    assert len(load_ply("out.ply")) == len(splats.frames[0])
