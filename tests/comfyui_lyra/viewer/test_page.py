"""The page in headless Chromium with software WebGL, and its arithmetic in node's own test runner.

PLAYWRIGHT_CORE, CHROMIUM_PATH   as in tests/comfyui/test_editor.py; without a browser only the arithmetic is tested
LYRA_SCREENSHOTS                 a folder for pictures of the page
"""

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths, through_keyframes
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.splats.render import RenderSettings, render
from lyra_pack.comfyui_lyra.viewer.html import write_html
from PIL import Image

HERE = Path(__file__).resolve().parent
SIZE = (320, 192)
PATHS = six_paths(pinhole_camera(*SIZE, 50), PathSettings(frames=5, movement=1.5))
FIVE = ((0, 0), (1, 4), (2, 4), (4, 4), (5, 2))  # path and frame of the cameras that pictures are compared from


def test_the_arithmetic_of_the_page(tmp_path):
    if not shutil.which("node"):
        pytest.skip("no node: the page's arithmetic is not run")
    keys = CameraTrajectory(
        c2w=torch.stack([PATHS[path].c2w[frame] for path, frame in FIVE]),
        K=torch.stack([PATHS[0].K[0] * torch.tensor([1 + 0.2 * i, 1 + 0.2 * i, 1])[:, None] for i in range(5)]),
        width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    path = through_keyframes(keys, 33)
    told = {
        "keys": [{"c2w": c2w.flatten().tolist(), "zoom": 1 + 0.2 * i} for i, c2w in enumerate(keys.c2w)],
        "path": path.c2w.flatten(1).tolist(),
        "zooms": (path.K[:, 0, 0] / keys.K[0, 0, 0]).tolist(),
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    command = ["node", "--test", str(HERE / "arithmetic.mjs")]
    environment = os.environ | {"TOLD": str(tmp_path / "told.json")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="session")
def moments() -> GaussianSequence:
    """A part of the demo scene's splats, and two moments at which some of them have gone: quickly drawn in software."""
    scene = demo_scene()[::8]
    return GaussianSequence(frames=(scene, scene[:1400], scene[:700]), times=(0, 8, 16))


DONE = (  # to a page, in order; ``seen`` has what each gave under the same name
    ("first", {"picture": 0}), ("slid", {"slide": 8}), ("second", {"picture": 0}), ("back", {"slide": 0}),
    ("home", {"key": ["r", 20]}), ("walked", {"key": ["w", 300]}), ("aside", {"key": ["d", 300]}),
    ("raised", {"key": ["e", 300]}), ("alone", {"key": ["h", 20]}),
    ("turned", {"drag": [[80, 50], [140, 50], "left"]}),
    ("moved", {"drag": [[80, 50], [110, 50], "right"]}), ("wheeled", {"wheel": -300}),
    ("keyed", {"key": ["k", 20]}), ("away", {"key": ["s", 300]}), ("keyed again", {"key": ["k", 20]}),
    ("flown", {"evaluate": "(lyra.speed = 20, lyra.flyKeys(), new Promise((done) => setTimeout(done, 600)))"}),
    ("end", {"evaluate": "lyra.settled().then(() => lyra.state)"}), ("unkeyed", {"key": ["Backspace", 20]}),
    ("asked", {"evaluate": "document.getElementById('ask').click()"}),
    ("help", {"evaluate": "document.getElementById('help').open"}), ("closed", {"key": ["?", 20]}),
    ("playing", {"evaluate": "(lyra.speed = 1, lyra.play(true), 0)"}), ("waited", {"wait": 500}),
    ("clock", {"evaluate": "lyra.clock"}), ("stopped", {"evaluate": "lyra.play(false)"}),
    ("less", {"evaluate": "(lyra.store.budget = 3e4, lyra.seek(16), lyra.settled())"}),
    ("held", {"evaluate": "(lyra.store.load(), [...lyra.store.held.keys()])"}),
)  # fmt: skip


@pytest.fixture(scope="session")
def pages(browser, moments, tmp_path_factory) -> list[dict]:
    """What became of two pages opened from files: one that things are done to, and the demo scene from five cameras."""
    folder = tmp_path_factory.mktemp("pages")
    write_html(folder / "moving.html", moments, PATHS, fps=12.0)
    write_html(folder / "demo.html", GaussianSequence(frames=(demo_scene(),), times=(0,)), PATHS)
    looks = []
    for c2w in (PATHS[path].c2w[frame] for path, frame in FIVE):
        camera = {"p": c2w[:3, 3].tolist(), "r": c2w[:3, :3].flatten().tolist(), "zoom": 1}
        looks += [{"evaluate": f"lyra.look({json.dumps(camera)})"}, {"picture": 0}]
    jobs = [
        {"url": (folder / "moving.html").as_uri(), "size": (160, 96), "steps": [step for _, step in DONE]},
        {"url": (folder / "demo.html").as_uri(), "size": SIZE, "steps": looks},
    ]
    return drive(browser, folder, jobs)


@pytest.fixture(scope="session")
def seen(pages) -> dict:
    """What the first page gave by the names of what was done to it."""
    return pages[0] | dict(zip([name for name, _ in DONE], pages[0]["results"], strict=True))


@pytest.fixture(scope="session")
def pictures(pages) -> list[np.ndarray]:
    """What the second page drew."""
    assert (pages[1]["errors"], pages[1]["outside"]) == ([], [])
    return [pixels(picture) for picture in pages[1]["results"][1::2]]


def drive(browser, folder: Path, jobs: list[dict]) -> list[dict]:
    """What page.mjs found."""
    (folder / "pages.json").write_text(json.dumps(jobs))
    command = ["node", str(HERE / "page.mjs"), str(folder / "pages.json")]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def pixels(picture: str) -> np.ndarray:
    """A PNG in base64 as [H, W, 3] in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")) / 255


def drawn(splats, camera) -> np.ndarray:
    """What our own rasteriser draws."""
    return render(splats, camera, RenderSettings(mode="ewa")).rgb[0].clamp(0, 1).numpy()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(((first - second) ** 2).mean()))


def place(state: dict) -> np.ndarray:
    return np.array(state["camera"]["c2w"]).reshape(4, 4)[:3, 3]


def axes(state: dict) -> np.ndarray:
    return np.array(state["camera"]["c2w"]).reshape(4, 4)[:3, :3]


@pytest.mark.parametrize("index", range(len(FIVE)))
def test_the_page_draws_what_our_rasteriser_draws(pictures, index):
    path, frame = FIVE[index]
    ours, theirs = drawn(demo_scene(), PATHS[path][frame : frame + 1]), pictures[index]
    assert theirs.shape == ours.shape
    assert psnr(ours, theirs) >= 30
    assert psnr(np.roll(ours, 1, 1), theirs) < psnr(ours, theirs) - 3  # a pixel aside would be seen


def test_the_slider_shows_another_moment(seen, moments):
    assert seen["slid"]["moment"] == 1 and seen["back"]["moment"] == 0
    small = PATHS[0][:1].resized(96, 160)
    ours = [drawn(splats, small) for splats in moments.frames[:2]]
    theirs = [pixels(seen[name]) for name in ("first", "second")]
    assert min(psnr(a, b) for a, b in zip(ours, theirs, strict=True)) >= 30 > psnr(ours[0], theirs[1])


def test_keys_walk_along_the_cameras_own_axes(seen):
    home, walked, aside, raised = (seen[name] for name in ("home", "walked", "aside", "raised"))
    assert np.abs(place(home)).max() < 1e-6
    assert place(walked)[2] > 0.02 and np.abs(place(walked)[:2]).max() < 1e-6
    assert place(aside)[0] > 0.02 and place(raised)[1] < -0.02


def test_the_pointer_orbits_and_moves_and_the_wheel_goes_nearer(seen):
    raised, turned, moved, wheeled = (seen[name] for name in ("raised", "turned", "moved", "wheeled"))
    assert not np.allclose(axes(turned), axes(raised), atol=0.01)
    assert not np.allclose(place(turned), place(raised), atol=0.01)
    assert np.allclose(axes(moved), axes(turned)) and not np.allclose(place(moved), place(turned), atol=0.01)
    ahead = axes(moved)[:, 2]
    assert (place(wheeled) - place(moved)) @ ahead > 0.05


def test_keyframes_are_set_flown_through_and_taken_away(seen):
    assert len(seen["keyed"]["keyframes"]) == 1
    assert seen["keyed"]["keyframes"][0] == seen["keyed"]["camera"]
    keys = seen["keyed again"]["keyframes"]
    assert len(keys) == 2 and keys[0] != keys[1]
    assert np.allclose(seen["end"]["camera"]["c2w"], keys[1]["c2w"], atol=1e-5)
    assert len(seen["unkeyed"]["keyframes"]) == 1


def test_a_question_mark_shows_the_keys(seen):
    assert seen["help"] is True


def test_playing_goes_on_in_time(seen):
    assert 1 < seen["clock"] < 24


def test_moments_beyond_the_memory_are_let_go(seen):
    assert seen["held"] == [2]


def test_nothing_goes_wrong_and_nothing_is_asked_for_outside(seen):
    assert (seen["errors"], seen["outside"]) == ([], [])
