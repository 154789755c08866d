"""The pack's nodes as ComfyUI loads, serves and runs them."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
SCENE = {"class_type": "LyraLoadSplats", "inputs": {"file": "demo scene"}}


def paths(**widgets) -> dict:
    """A Camera Paths node."""
    inputs = {"preset": "left", "movement": 1, "rotation": "no_rotation", "seed": 1, "frames": 2, "fps": 8, "width": 64}
    inputs |= {"height": 48, "fov": 50, "center_depth": 1, "draw": "seeded"}
    return {"class_type": "LyraCameraPaths", "inputs": inputs | widgets}


def drawn(**links) -> dict:
    """A Render Splats node."""
    inputs = {"width": 0, "height": 0, "every": 1, "background": "#ffffff", "backend": "auto", "mode": "ut_eval3d"}
    return {"class_type": "LyraRenderSplats", "inputs": inputs | links}


def shown(*link) -> dict:
    """A Preview Image node."""
    return {"class_type": "PreviewImage", "inputs": {"images": list(link)}}


def test_every_node_is_served_with_its_help_page(comfyui):
    locale = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    info = comfyui.get("/object_info")
    ours = {name for name, node in info.items() if node["python_module"].startswith("custom_nodes.ComfyUI-Lyra")}
    assert ours == set(locale)
    for name in ours:
        assert comfyui.get(f"/extensions/ComfyUI-Lyra/docs/{name}.md").startswith(b"# ")
        assert info[name]["display_name"] == locale[name]["display_name"]
    assert set(comfyui.get("/i18n")["zh"]["nodeDefs"]) >= ours
    assert comfyui.get("/workflow_templates")["ComfyUI-Lyra.test"]


def test_cores_splat_nodes_take_and_give_ours(comfyui):
    """Core merges the scene with itself and writes it; we read that file, crop it and save."""
    prompt = {
        "1": SCENE,
        "2": {"class_type": "MergeSplat", "inputs": {"splats.splat0": ["1", 0], "splats.splat1": ["1", 0]}},
        "3": {"class_type": "SplatToFile3D", "inputs": {"splat": ["2", 0], "format": "ply"}},
        "4": {"class_type": "LyraLoadSplats", "inputs": {"file": "demo scene", "model_3d": ["3", 0]}},
        "5": {"class_type": "GetSplatCount", "inputs": {"splat": ["4", 0]}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 1]}},
        "7": {"class_type": "GetSplatCount", "inputs": {"splat": ["1", 0]}},
        "8": {"class_type": "PreviewAny", "inputs": {"source": ["7", 1]}},
    }
    result = comfyui.run(prompt)
    assert int(result["6"]["text"][0]) == 2 * int(result["8"]["text"][0])


def test_core_and_we_see_the_same_picture(comfyui):
    """Core's own renderer, given our camera through Camera to 3D View, agrees with Render Splats on what is where."""
    prompt = {
        "1": SCENE,
        "2": paths(width=96, height=96, frames=3),
        "3": {"class_type": "LyraCameraToCore", "inputs": {"cameras": ["2", 0], "path": 0, "frame": 2}},
        "4": {
            "class_type": "RenderSplat",
            "inputs": {
                "splat": ["1", 0], "width": 96, "height": 96, "frames": 1, "splat_scale": 1.0, "sharpen": 1.0,
                "headlight_shading": 0.0, "opacity_threshold": 0.0, "render_style": "color", "background": "#ffffff",
                "camera_info": ["3", 0],
            },
        },
        "5": shown("4", 0),
        "6": drawn(splat=["1", 0], cameras=["2", 0], every=2),
        "7": shown("6", 0),
    }  # fmt: skip
    result = comfyui.run(prompt)
    core, ours = (picture(comfyui, result[key]["images"][-1]) for key in ("5", "7"))
    assert abs(core - ours).mean() < 0.06
    assert abs(core - ours[::-1]).mean() > 0.15  # upside down it would not agree


def picture(comfyui, item: dict):
    """A picture that a node has shown, [H, W, 3] in [0, 1]."""
    with Image.open(comfyui.base / item["type"] / item["subfolder"] / item["filename"]) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


def test_a_run_can_be_stopped_between_frames(comfyui):
    long = paths(frames=2001, width=320, height=176)
    prompt_id = comfyui.submit(
        {"1": SCENE, "2": long, "3": drawn(splat=["1", 0], cameras=["2", 0]), "4": shown("3", 0)}
    )
    while not comfyui.get("/queue")["queue_running"]:
        time.sleep(0.1)
    time.sleep(1)
    comfyui.get("/interrupt", {})
    with pytest.raises(comfyui.Refused, match="execution_interrupted in LyraRenderSplats"):
        comfyui.finish(prompt_id, seconds=60)


def test_mistakes_are_reported_in_one_sentence(comfyui):
    wrong_path = {"class_type": "LyraCameraToCore", "inputs": {"cameras": ["1", 0], "path": 5, "frame": 0}}
    with pytest.raises(comfyui.Refused, match=r"LyraCameraToCore: path 5: the set holds 1 \(0 left\)"):
        comfyui.run({"1": paths(), "2": wrong_path, "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}})
    gone = {"path": "gone.json", "width": 0, "height": 0, "clip": ""}
    look = {"class_type": "LyraPreviewCameras", "inputs": {"cameras": ["1", 0], "width": 512, "height": 256}}
    with pytest.raises(comfyui.Refused, match="'gone.json' is neither in"):
        comfyui.run({"1": {"class_type": "LyraLoadCameraPaths", "inputs": gone}, "2": look})
