"""Every shipped workflow in a real ComfyUI."""

import json
from pathlib import Path

import av
import pytest
from lyra_pack.comfyui_lyra.files.ply import load_ply
from PIL import Image

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]


def workflow(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def written(comfyui, shown: list[dict]) -> list[Path]:
    """The files that a node has shown."""
    return [comfyui.base / item["type"] / item["subfolder"] / item["filename"] for item in shown]


def test_splat_tour_shows_a_splat_a_video_and_the_paths(comfyui):
    tour = workflow("splat_tour")
    prompt = comfyui.api_form(tour)
    ids = {node["class_type"]: key for key, node in prompt.items()}
    prompt[ids["LyraCameraPaths"]]["inputs"] |= {"frames": 3, "width": 96, "height": 64}
    shown = comfyui.run(prompt)

    (ply,) = written(comfyui, shown[ids["LyraSaveSplats"]]["3d"])
    assert len(load_ply(ply)) > 10_000
    viewed, camera, _ = shown[ids["PreviewGaussianSplat"]]["result"]
    assert (comfyui.base / "temp" / viewed).read_bytes() == ply.read_bytes()
    assert camera["position"] == {"x": 0, "y": 0, "z": 0}
    assert camera["target"]["z"] == pytest.approx(-1)  # the demo scene lies ahead of the first camera

    (video,) = written(comfyui, shown[ids["SaveVideo"]]["images"])
    with av.open(str(video)) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
        assert clip.streams.video[0].average_rate == prompt[ids["LyraCameraPaths"]]["inputs"]["fps"]
    assert len(frames) == 6 * 3
    assert frames[0].shape == (64, 96, 3)
    assert frames[0].std() > 20  # something is to be seen

    (drawing,) = written(comfyui, shown[ids["LyraPreviewCameras"]]["images"])
    assert Image.open(drawing).size == (1024, 512)
