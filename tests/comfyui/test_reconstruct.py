"""From latents on disk to splats, frames and files, in a real ComfyUI, with tiny models of random weights."""

import json

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.configs import ReconConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene, save_scene
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.recon.reconstruct import reconstruct
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer

pytestmark = pytest.mark.comfyui

HEIGHT, WIDTH, FRAMES, VIEWS = 32, 48, 9, 6


@pytest.fixture(scope="module")
def family(comfyui):
    """Tokenizer, splat decoder and latents of six paths, written where ComfyUI finds them."""
    torch.manual_seed(0)
    config = TokenizerConfig(family="tiny", channels=8, multipliers=(1, 2, 2), layers=1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.ones(16, 2))
    recon = Recon(
        ReconConfig(
            family="tiny",
            dynamic=True,
            trained_size=(HEIGHT, WIDTH),
            trained_frames=FRAMES,
            width=32,
            blocks=2,
            attention_every=2,
            heads=2,
            head_size=16,
            state=8,
            far=20.0,
            bf16_rays=False,
        )  # fmt: skip
    ).eval()
    with torch.no_grad():
        for weight in recon.parameters():  # some begin at zero
            weight += 0.05 * torch.randn(weight.shape)
    paths = camera_paths(pinhole_camera(WIDTH, HEIGHT, 50), PathSettings("six_paths", FRAMES))
    values = VideoLatents(values=torch.randn(VIEWS, 16, 2, HEIGHT // 8, WIDTH // 8))
    scene = MultiViewLatents(latents=values, cameras=paths, family="tiny", dynamic=True)
    save_tokenizer(tokenizer, comfyui.base / "models" / "vae" / "tiny.safetensors")
    save_recon(recon, comfyui.base / "models" / "lyra" / "tiny.safetensors")
    save_scene(comfyui.base / "input" / "room", "night", scene)
    return tokenizer, recon, scene


def node(kind: str, **inputs) -> dict:
    return {"class_type": f"Lyra{kind}", "inputs": inputs}


def loaders(precision: str = "auto") -> dict:
    """The three nodes that a reconstruction begins with."""
    return {
        "latents": node("LoadLatents", path="room", clip="", dynamic=False),
        "tokenizer": node("LoadTokenizer", file="tiny.safetensors", precision=precision),
        "recon": node("LoadRecon", file="tiny.safetensors", precision=precision),
        "splats": node(
            "Reconstruct",
            recon=["recon", 0],
            tokenizer=["tokenizer", 0],
            latents=["latents", 0],
            times="8, 0",
            keep=0.0,
            chunk=0,
        ),
    }


def shown(*link) -> dict:
    return {"class_type": "PreviewImage", "inputs": {"images": list(link)}}


def test_latents_become_splats_frames_and_files(comfyui, family):
    tokenizer, recon, scene = family
    prompt = loaders() | {
        "one": node("SelectTime", splat=["splats", 0], index=1),
        "ply": node("SaveSplats", splat=["one", 0], filename_prefix="3d/room", scale=1.0),
        "render": node(
            "RenderSplats", splat=["one", 0], cameras=["splats", 1], width=0, height=0, every=4, background="#000000",
            backend="auto", mode="ut_eval3d",
        ),
        "frames": shown("render", 0),
        "folder": node(
            "SaveSplatSequence", splat=["splats", 0], times=["splats", 2], filename_prefix="3d/run", scale=1.0,
            cameras=["splats", 1],
        ),
        "decode": node("DecodeLatents", latents=["latents", 0], tokenizer=["tokenizer", 0], view=5),
        "video": shown("decode", 0),
        "plan": node(
            "Plan", cameras=["splats", 1], recon=["recon", 0], tokenizer=["tokenizer", 0], times="8, 0", steps=35
        ),
    }  # fmt: skip
    result = comfyui.run(prompt)
    expected, _ = reconstruct(recon, tokenizer, scene, (8, 0))
    (saved,) = result["ply"]["3d"]
    ply = load_ply(comfyui.base / "output" / saved["subfolder"] / saved["filename"])
    assert len(ply) == len(expected.frames[1])
    torch.testing.assert_close(ply.means, expected.frames[1].means, rtol=1e-3, atol=1e-3)

    assert result["folder"]["text"] == ["2 scenes: 3d/run_00001_"]
    folder = comfyui.base / "output" / "3d" / "run_00001_"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["time"] for entry in manifest["frames"]] == [8, 0]
    torch.testing.assert_close(load_ply(folder / "00001.ply").means, ply.means)

    assert len(result["frames"]["images"]) == VIEWS * 3 and len(result["video"]["images"]) == FRAMES
    assert "6 paths of 9 frames of 48x32" in result["plan"]["text"][0]


def test_latents_pass_through_core_and_are_saved(comfyui, family):
    prompt = {"latents": loaders()["latents"]} | {
        "core": node("LatentsToCore", latents=["latents", 0]),
        "doubled": {"class_type": "LatentMultiply", "inputs": {"samples": ["core", 0], "multiplier": 2.0}},
        "back": node("LatentsFromCore", latent=["doubled", 0], cameras=["core", 1], dynamic=True, family="tiny"),
        "saved": node(
            "SaveLatents", latents=["back", 0], filename_prefix="lyra/double", clip="clip", reference_format=True
        ),
    }
    result = comfyui.run(prompt)
    assert result["saved"]["text"] == ["6 paths: lyra/double_00001_"]
    doubled = load_scene(comfyui.base / "output" / "lyra" / "double_00001_")
    assert torch.equal(doubled.latents.values, 2 * family[2].latents.values) and doubled.dynamic


def test_models_are_let_go_and_loaded_again(comfyui, family):
    prompt = loaders("bfloat16") | {"count": {"class_type": "GetSplatCount", "inputs": {"splat": ["splats", 0]}}}
    prompt |= {"seen": {"class_type": "PreviewAny", "inputs": {"source": ["count", 1]}}}
    kept = int(VIEWS * FRAMES * 4 * 6 * 0.2)
    assert comfyui.run(prompt)["seen"]["text"] == [str(2 * kept)]
    comfyui.get("/free", {"unload_models": True, "free_memory": True})
    prompt["splats"]["inputs"]["times"] = "4"
    assert comfyui.run(prompt)["seen"]["text"] == [str(kept)]
    assert "memory leak" not in comfyui.log.read_text(errors="replace")


def test_mistakes_are_said_in_one_sentence(comfyui, family):
    prompt = loaders() | {"ply": node("SaveSplats", splat=["splats", 0], filename_prefix="3d/no", scale=1.0)}
    with pytest.raises(comfyui.Refused, match="2 bullet times .* Save Splat Sequence"):
        comfyui.run(prompt)
    prompt["splats"]["inputs"]["times"] = "0, end"
    with pytest.raises(comfyui.Refused, match="LyraReconstruct: bullet times '0, end': 'end' is no frame number"):
        comfyui.run(prompt)
    prompt["recon"]["inputs"]["file"] = "lyra_static.pt"
    with pytest.raises(comfyui.Refused, match="no file 'lyra_static.pt' in models/lyra; put one there"):
        comfyui.run(prompt)
    prompt["latents"]["inputs"]["path"] = "gone"
    with pytest.raises(comfyui.Refused, match="'gone' is neither in"):
        comfyui.run(prompt)
