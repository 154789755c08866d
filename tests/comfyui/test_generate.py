"""From a picture and its depth picture to latents on disk, in a real ComfyUI, with tiny models of random weights."""

import time
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig
from lyra_pack.comfyui_lyra.files.media.images import load_image, save_image
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene
from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher
from lyra_pack.comfyui_lyra.geometry.fit import condition_frame, fit
from lyra_pack.comfyui_lyra.sources.geometry import from_depth
from lyra_pack.comfyui_lyra.tokenizer.clips import encode_clip
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, build_autoencoder, save_tokenizer

pytestmark = pytest.mark.comfyui

HEIGHT, WIDTH, FRAMES = 32, 48, 9
LENS = {"meaning": "near-far", "near": 1.0, "far": 8.0, "fov": 60.0}


@pytest.fixture(scope="module")
def tokenizer(comfyui) -> CosmosTokenizer:
    """Teacher and tokenizer where ComfyUI finds models, a picture and its depth picture where it finds input."""
    config = TeacherConfig(
        family="toy", trained_size=(HEIGHT, WIDTH), trained_frames=FRAMES, heads=2, head_dim=16, blocks=2,
        adaln_rank=8, text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    network = random_teacher(config, torch.device("cpu"))
    teacher = Teacher(network=network, config=config, fingerprint="random", dtype=torch.bfloat16)
    save_teacher(teacher, comfyui.base / "models" / "diffusion_models" / "toy.safetensors")
    torch.manual_seed(0)
    config = TokenizerConfig(family="toy", channels=8, multipliers=(1, 2, 2), layers=1)
    tokenizer = CosmosTokenizer(config, build_autoencoder(config), torch.zeros(16, 2), torch.ones(16, 2))
    save_tokenizer(tokenizer, comfyui.base / "models" / "vae" / "toy.safetensors")
    save_image(comfyui.base / "input" / "room.png", torch.rand(60, 80, 3))
    near = torch.linspace(0.2, 0.5, 60)[:, None, None].repeat(1, 80, 3)
    near[10:40, 30:50] = 0.9
    save_image(comfyui.base / "input" / "depth.png", near)
    return tokenizer


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind if kind in ("LoadImage", "PreviewImage") else f"Lyra{kind}", "inputs": inputs}


def workflow(**generate) -> dict:
    """Everything up to the latents of two paths."""
    move = {
        "movement": 1.0, "rotation": "center_facing", "seed": 1, "frames": FRAMES, "fps": 8.0, "width": 64,
        "height": 48, "fov": 50.0, "center_depth": 1.0, "draw": "seeded", "geometry": ["geometry", 0],
    }  # fmt: skip
    settings = {
        "seed": 1, "steps": 3, "guidance": 1.0, "solver": "euler", "speed": 0.0, "resume": True, "save_video": True,
        "foreground_masking": True,
    }  # fmt: skip
    return {
        "picture": node("LoadImage", image="room.png"),
        "depth": node("LoadImage", image="depth.png"),
        "geometry": node(
            "GeometryFromDepth", image=["picture", 0], depth=["depth", 0], width=WIDTH, height=HEIGHT, fit="crop",
            scale="auto", **LENS,
        ),
        "left": node("CameraPaths", preset="left", **move),
        "in": node("CameraPaths", preset="zoom_in", **move),
        "paths": node("CombineCameras", **{"sets.cameras0": ["left", 0], "sets.cameras1": ["in", 0]}),
        "teacher": node("LoadTeacher", file="toy.safetensors", precision="float32", attention="auto", memory="auto"),
        "tokenizer": node("LoadTokenizer", file="toy.safetensors", precision="float32"),
        "latents": node(
            "GenerateLatents", teacher=["teacher", 0], tokenizer=["tokenizer", 0], geometry=["geometry", 0],
            cameras=["paths", 0], **settings | generate,
        ),
    }  # fmt: skip


def test_a_picture_becomes_latents_that_are_shown_saved_and_loaded(comfyui, tokenizer):
    shown = comfyui.run(
        workflow(name="room")
        | {
            "cache": node(
                "PreviewCache", geometry=["geometry", 0], cameras=["paths", 0], path=1, every=4,
                foreground_masking=True,
            ),
            "drawing": node(
                "PreviewCameras", cameras=["paths", 0], width=512, height=256, geometry=["geometry", 0]
            ),
            "save": node(
                "SaveLatents", latents=["latents", 0], filename_prefix="lyra/copy", clip="clip", reference_format=False
            ),
            "decode": node("DecodeLatents", latents=["latents", 0], tokenizer=["tokenizer", 0], view=1),
            "video": node("PreviewImage", images=["decode", 0]),
        }
    )  # fmt: skip
    assert len(shown["cache"]["images"]) == 3 and len(shown["video"]["images"]) == FRAMES
    assert len(shown["drawing"]["images"]) == 1

    root = comfyui.base / "output" / "lyra"
    made, copied = load_scene(root / "room"), load_scene(root / "copy_00001_")
    assert torch.equal(made.latents.values, copied.latents.values)
    assert [path.name for path in made.cameras] == ["left", "zoom_in"]
    assert {(len(path), path.width, path.height) for path in made.cameras} == {(FRAMES, WIDTH, HEIGHT)}
    assert (root / "room" / "1" / "rgb" / "room.mp4").stat().st_size > 0

    # the videos begin with the picture, and the paths lie in its geometry's world
    files = (load_image(comfyui.base / "input" / f"{name}.png")[None] for name in ("room", "depth"))
    frames, near = files
    geometry = fit(from_depth(frames, near[..., 0], **LENS), HEIGHT, WIDTH)
    first = encode_clip(tokenizer, condition_frame(geometry))
    torch.testing.assert_close(made.latents.values[:, :, :1], first.expand(2, -1, -1, -1, -1), rtol=0, atol=5e-3)
    torch.testing.assert_close(made.cameras[0].K[0], geometry.cameras.K[0])
    assert float(made.provenance["scale"]) == pytest.approx(geometry.scale)

    again = comfyui.run({"load": node("LoadLatents", path="lyra/room", clip="", dynamic=False)} | {
        "core": node("LatentsToCore", latents=["load", 0]),
        "see": {"class_type": "PreviewAny", "inputs": {"source": ["core", 0]}},
    })  # fmt: skip
    assert "tensor" in again["see"]["text"][0]
    comfyui.run(workflow(name="room", seed=2))
    other, kept = load_scene(root / "room_2"), load_scene(root / "room")
    assert torch.equal(kept.latents.values, made.latents.values)
    assert not torch.equal(other.latents.values, made.latents.values)


def test_a_cancelled_run_returns_at_once_and_the_next_one_goes_on(comfyui, tokenizer):
    long = workflow(name="long", steps=30)
    root = comfyui.base / "output" / "lyra" / "long"
    files = [root / view / "latent" / "long.safetensors" for view in ("0", "1")]
    prompt_id = comfyui.submit(long)
    deadline = time.monotonic() + 120
    while not files[0].is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    comfyui.get("/interrupt", {})
    pressed = time.monotonic()
    with pytest.raises(comfyui.Refused, match="execution_interrupted in LyraGenerateLatents"):
        comfyui.finish(prompt_id, seconds=60)
    assert time.monotonic() - pressed < 20  # on a busy machine too
    assert not files[1].exists()
    with pytest.raises(ValueError, match="1 of the 2 paths of 'long' are finished; generate it once more"):
        load_scene(root)
    written = files[0].stat().st_mtime_ns
    comfyui.run(long)
    assert files[0].stat().st_mtime_ns == written
    comfyui.run(workflow(name="whole", steps=30))
    whole, resumed = (load_scene(root.with_name(name)) for name in ("whole", "long"))
    assert torch.equal(resumed.latents.values, whole.latents.values)
    assert replace(whole, latents=resumed.latents).provenance == resumed.provenance
