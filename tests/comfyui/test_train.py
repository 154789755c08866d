"""A splat decoder trained on generated scenes in a real ComfyUI: cancelled, resumed, used and judged."""

import time

import pytest
import torch
from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.gen3c.load import Teacher
from lyra_pack.comfyui_lyra.recon.load import load_recon
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer
from lyra_pack.comfyui_lyra.training.data.sdg_disk import write_sdg
from lyra_pack.comfyui_lyra.training.run.checkpoint import latest

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

STEPS = 10
WIDGETS = {
    "dataset": "scenes", "preset": "quick", "minutes": 0.0, "name": "mine", "resume": True, "start_from": "",
    "batch": 1, "flipped": False, "seed": 0,
}  # fmt: skip


def node(kind: str, **inputs) -> dict:
    return {"class_type": f"Lyra{kind}", "inputs": inputs}


@pytest.fixture(scope="module")
def scene(comfyui) -> str:
    """A scene of the mini size by a teacher of random weights, and the tokenizer it was made with."""
    torch.manual_seed(0)
    config = TokenizerConfig(family="mini", channels=8, multipliers=(1, 1, 1), layers=1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 3), torch.ones(16, 3))
    save_tokenizer(tokenizer, comfyui.base / "models" / "vae" / "student.safetensors")
    config = TeacherConfig(
        family="mini", trained_size=(96, 160), trained_frames=17, heads=2, head_dim=16, blocks=1, adaln_rank=4,
        text_dim=8, text_rows=2, max_grid=(3, 12, 20), bf16_angles=False,
    )  # fmt: skip
    teacher = Teacher(
        network=random_teacher(config, torch.device("cpu")).float(), config=config, fingerprint="r", dtype=torch.float32
    )
    settings = GenerateSettings(steps=2, solver="dpmpp_2m", guidance=0)
    write_sdg(comfyui.base / "output" / "scenes", teacher, tokenizer, [10_000], settings=settings)
    (clip,) = (comfyui.base / "output" / "scenes" / "0" / "latent").glob("*.safetensors")
    return clip.stem


def test_a_training_is_cancelled_resumed_and_its_decoder_judged(comfyui, scene):
    prompt = {
        "tokenizer": node("LoadTokenizer", file="student.safetensors", precision="auto"),
        "train": node("TrainRecon", tokenizer=["tokenizer", 0], steps=STEPS, **WIDGETS),
    }
    folder = comfyui.base / "output" / "lyra" / "decoders" / "mine"
    running = comfyui.submit(prompt)
    while not (folder / "log.jsonl").exists() or '"loss"' not in (folder / "log.jsonl").read_text():
        if ended := comfyui.get(f"/history/{running}"):
            pytest.fail(f"it ended before its first step: {ended[running]['status']}")
        time.sleep(0.2)
    comfyui.get("/interrupt", {})
    with pytest.raises(comfyui.Refused, match="execution_interrupted in LyraTrainRecon"):
        comfyui.finish(running, seconds=120)
    assert 1 <= latest(folder).step < STEPS and not list(folder.glob("mini_recon*"))

    prompt |= {
        "latents": node("LoadLatents", path="scenes", clip=scene, dynamic=False),
        "splats": node(
            "Reconstruct", recon=["train", 0], tokenizer=["tokenizer", 0], latents=["latents", 0], times="0", keep=0.02,
            chunk=0,
        ),
        "judge": node(
            "Evaluate", splat=["splats", 0], cameras=["splats", 1], latents=["latents", 0], tokenizer=["tokenizer", 0],
            times=["splats", 2], every=16, gain=4.0, lpips_vgg="", lpips_heads="",
        ),
        "error": {"class_type": "PreviewImage", "inputs": {"images": ["judge", 0]}},
    }  # fmt: skip
    shown = comfyui.run(prompt)
    assert latest(folder).step == STEPS
    assert len(shown["train"]["images"]) == 1 and len(shown["error"]["images"]) == 6 * 2
    assert shown["judge"]["text"][0].startswith("PSNR ") and "TPIPS" in shown["judge"]["text"][0]
    assert load_recon(folder / "mini_recon_static.safetensors").config.family == "mini"
    offered = comfyui.get("/object_info/LyraLoadRecon")["LyraLoadRecon"]["input"]["required"]["file"]
    assert "mine/mini_recon_static.safetensors" in str(offered)
