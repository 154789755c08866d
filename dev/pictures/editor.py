"""Pictures of ComfyUI's editor: templates, and small graphs for the help pages. They need a ComfyUI and a browser."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras
from lyra_pack.comfyui_lyra.weights.shipped import MINI
from PIL import Image

from . import ROOT, cards, sampled
from .sheets import ASSETS, README_WIDTH, TEMPLATE_WIDTH, TEMPLATES, narrowed, place, save

RUN_SECONDS = 1500
IN_README = ("picture_to_3d", "clip_to_4d")  # templates whose run is a picture of the README too
HELP_WIDTH = 860  # most pixels

Node = dict[str, object]


def node(kind: str, at: tuple[int, int], size: tuple[int, int] | None = None, **inputs: object) -> Node:
    """A node of a graph: where it stands, without a ``size`` folded, and its inputs; a link is [node, output]."""
    return {"class_type": kind, "inputs": inputs, "_meta": {"at": at, "size": size}}


def splats() -> Node:
    """The demo scene."""
    return node("LyraLoadSplats", (0, 40), (300, 80), file="demo scene")


def viewer(at: tuple[int, int], model: str, camera: str) -> Node:
    """Core's viewer of splats."""
    return node(
        "PreviewGaussianSplat", at, (480, 480), model_3d=[model, 0], camera_info=[camera, 0], width=960, height=544
    )


def paths(at: tuple[int, int], **inputs: object) -> Node:
    """Paths of small pictures, folded."""
    about = {"preset": "six_paths", "movement": 1.0, "rotation": "center_facing", "seed": 1, "frames": 17, "fps": 12.0}
    about |= {"width": 480, "height": 272, "fov": 45.0, "center_depth": 1.0, "draw": "seeded"}
    return node("LyraCameraPaths", at, **about | inputs)


def drawn(at: tuple[int, int], cameras: str) -> Node:
    """The drawing of paths around the demo scene, which is the node "splats"."""
    return node("LyraPreviewCameras", at, (400, 330), cameras=[cameras, 0], splat=["splats", 0], width=1024, height=512)


def mini(kind: str, at: tuple[int, int]) -> Node:
    """A loader of a mini model, folded."""
    file = {"Teacher": "mini_teacher", "Tokenizer": "mini_tokenizer", "Recon": "mini_recon_static"}[kind]
    more = {"attention": "auto", "memory": "auto"} if kind == "Teacher" else {}
    return node(f"LyraLoad{kind}", at, file=f"mini/{file}.safetensors", precision="auto", **more)


def looking(yaw: float, at: tuple[int, int]) -> Node:
    """A camera of core's that looks at the demo scene, folded."""
    orbit = {"mode": "orbit", "mode.yaw": yaw, "mode.pitch": 8.0, "mode.distance": 1.0}
    about = {"target_x": 0.0, "target_y": 0.0, "target_z": -1.0, "roll": 0.0, "fov": 45.0, "zoom": 1.0}
    return node("CreateCameraInfo", at, **orbit | about, camera_type="perspective")


GRAPHS: dict[str, dict[str, Node]] = {  # by the id of the node whose help shows them
    "LyraCameraToCore": {
        "splats": splats(),
        "paths": paths((0, 180)),
        "camera": node("LyraCameraToCore", (0, 240), (300, 100), cameras=["paths", 0], path=3, frame=12),
        "file": node("SplatToFile3D", (0, 400), (300, 80), splat=["splats", 0], format="ply"),
        "view": viewer((360, 40), "file", "camera"),
    },
    "LyraLoadSplats": {
        "splats": splats(),
        "paths": paths((0, 180)),
        "camera": node("LyraCameraToCore", (0, 240), (300, 100), cameras=["paths", 0], path=0, frame=0),
        "file": node("SplatToFile3D", (0, 400), (300, 80), splat=["splats", 0], format="ply"),
        "view": viewer((360, 40), "file", "camera"),
    },
    "LyraCamerasFromCore": {
        **{f"look{i}": looking(yaw, (0, 40 + 50 * i)) for i, yaw in enumerate((-40.0, 0.0, 40.0))},
        "splats": node("LyraLoadSplats", (0, 240), file="demo scene"),
        "paths": node(
            "LyraCamerasFromCore", (210, 40), (230, 250), frames=25, easing="smooth", fps=12.0, width=480, height=272,
            **{f"keyframes.keyframe{i}": [f"look{i}", 0] for i in range(3)},
        ),
        "drawn": drawn((480, 40), "paths"),
    },
    "LyraCombineCameras": {
        **{
            f"paths{i}": paths((0, 40 + 50 * i), preset=preset)
            for i, preset in enumerate(("left", "up", "zoom_out"))
        },
        "splats": node("LyraLoadSplats", (0, 240), file="demo scene"),
        "set": node(
            "LyraCombineCameras", (210, 40), (230, 120), **{f"sets.cameras{i}": [f"paths{i}", 0] for i in range(3)}
        ),
        "drawn": drawn((480, 40), "set"),
    },
    "LyraLoadCameraPaths": {
        "paths": node(
            "LyraLoadCameraPaths", (0, 40), (290, 150), path="orbit/transforms.json", width=0, height=0, clip=""
        ),
        "splats": node("LyraLoadSplats", (0, 260), file="demo scene"),
        "drawn": drawn((340, 40), "paths"),
    },
    "LyraLatents": {
        "latents": node("LyraLoadLatents", (0, 40), (290, 120), path="mini/latents", clip="", dynamic=False),
        "core": node("LyraLatentsToCore", (340, 40), (230, 70), latents=["latents", 0]),
        "saved": node("SaveLatent", (340, 180), (230, 80), samples=["core", 0], filename_prefix="latents/ComfyUI"),
        "back": node(
            "LyraLatentsFromCore", (620, 40), (260, 110), latent=["core", 0], cameras=["core", 1], dynamic=False,
            family="mini",
        ),
        "tokenizer": mini("Tokenizer", (0, 320)),
        "frames": node(
            "LyraDecodeLatents", (340, 320), (230, 90), latents=["back", 0], tokenizer=["tokenizer", 0], view=2
        ),
        "shown": node("PreviewImage", (620, 210), (260, 230), images=["frames", 0]),
    },
    "LyraPlan": {
        "paths": paths((0, 40), width=160, height=96),
        "teacher": mini("Teacher", (0, 90)),
        "tokenizer": mini("Tokenizer", (0, 140)),
        "recon": mini("Recon", (0, 190)),
        "plan": node(
            "LyraPlan", (230, 40), (600, 400), cameras=["paths", 0], recon=["recon", 0], tokenizer=["tokenizer", 0],
            teacher=["teacher", 0], times="0", steps=12, guidance=0.0,
        ),
    },
    "LyraExploreSplats": {
        "splats": splats(),
        "paths": paths((0, 180)),
        "view": node(
            "LyraExploreSplats", (360, 40), (560, 620), splat=["splats", 0], fps=12.0, frames=25, easing="smooth",
            background="#ffffff", mode="ewa", state="", cameras=["paths", 0],
        ),
    },
    "LyraSaveSplats": {
        "sample": node("LyraSampleScene", (0, 40), sample="picture"),
        "latents": node("LyraLoadLatents", (0, 90), path="mini/latents", clip="", dynamic=False),
        "tokenizer": mini("Tokenizer", (0, 140)),
        "recon": mini("Recon", (0, 190)),
        "splats": node(
            "LyraReconstruct", (215, 140), latents=["latents", 0], recon=["recon", 0], tokenizer=["tokenizer", 0],
            times="0", keep=0.0, chunk=0,
        ),
        "refined": node(
            "LyraRefineSplats", (410, 40), splat=["splats", 0], cameras=["splats", 1], latents=["latents", 0],
            tokenizer=["tokenizer", 0], geometry=["sample", 0], steps=0, seconds=40.0, seed=0, times="",
        ),
        "saved": node(
            "LyraSaveSplats", (600, 40), (260, 230), splat=["refined", 0], filename_prefix="3d/lyra", scale=1.0,
            format="ply", up="usual",
        ),
        "camera": node("LyraCameraToCore", (600, 340), (260, 90), cameras=["splats", 1], path=0, frame=0),
        "view": viewer((910, 40), "saved", "camera"),
    },
}  # fmt: skip
PARTS = {  # of templates that cannot run without models: the nodes that a help page shows
    "LyraGeometryFromDA3": ("da3_clip_to_4d", range(1, 7)),
    "LyraGeometryFromMoGe": ("moge_to_3d", range(1, 5)),
}
NAMES = (*GRAPHS, *PARTS, *cards.SHOWN, *sampled.SAMPLED)


@contextmanager
def comfyui() -> Iterator[sampled.Server]:
    """A ComfyUI of our own, from COMFYUI_DIR, with what the graphs read."""
    spec = importlib.util.spec_from_file_location("comfyui_server", ROOT / "tests" / "comfyui" / "conftest.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    if not (checkout := os.environ.get("COMFYUI_DIR")):
        sys.exit("COMFYUI_DIR names no ComfyUI checkout, which pictures of the editor need")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends too
    with tempfile.TemporaryDirectory() as base:
        server = tests.ComfyUI(Path(checkout).resolve(), tests.interpreter(Path(checkout)), Path(base))
        try:
            server.wait()
            orbit = camera_paths(pinhole_camera(480, 272, 45.0), PathSettings("counterclockwise", 9))
            save_cameras(server.base / "input" / "orbit" / "transforms.json", orbit)
            shutil.copy(MINI / "clip.mp4", server.base / "input")
            shutil.copy(MINI / "picture.png", server.base / "input" / "example.png")
            for saved in TEMPLATES.glob("*.json"):
                for model in models_of(json.loads(saved.read_text(encoding="utf-8"))):
                    file = server.base / "models" / model["directory"] / model["name"]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()  # so that lists show it
            yield server
        finally:
            server.stop()


def models_of(workflow: dict) -> list[dict[str, str]]:
    """Files that a workflow asks for."""
    return [model for each in workflow["nodes"] for model in each["properties"].get("models", ())]


def photographed(url: str, workflow: Path, *words: object) -> Image.Image:
    """What the editor shows of a workflow; RuntimeError if its run failed or the editor complained."""
    with tempfile.TemporaryDirectory() as folder:
        shot, editor = Path(folder, "shot.png"), ROOT / "tests" / "comfyui" / "editor.mjs"
        command = ["node", editor, url, workflow, "--picture", shot, *words]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=RUN_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{workflow.stem}: {done.stderr[-2000:]}")
        (seen,) = json.loads(done.stdout)
        if seen["missing"] or seen["run"] not in (None, "execution_success"):
            raise RuntimeError(f"{workflow.stem}: unknown nodes {seen['missing']}, run {seen['run']}")
        return Image.open(shot).convert("RGB")


def shoot_graph(url: str, name: str, graph: Mapping[str, Node]) -> None:
    """The picture of a help page's graph after its run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.json")
        file.write_text(json.dumps(numbered(graph)), encoding="utf-8")
        save(narrowed(photographed(url, file, "--run", RUN_SECONDS, "--crop", "all"), HELP_WIDTH), place(name))


def numbered(graph: Mapping[str, Node]) -> dict[str, Node]:
    """The graph with numbers for the names of its nodes, as the editor wants them."""
    numbers = {name: str(i) for i, name in enumerate(graph, start=1)}

    def linked(value: object) -> object:
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: each | {"inputs": {key: linked(value) for key, value in each["inputs"].items()}}
        for name, each in graph.items()
    }


def shoot_template(url: str, name: str) -> None:
    """The picture of the template dialog, and the README's, after a run."""
    file = TEMPLATES / f"{name}.json"
    save(
        narrowed(photographed(url, file, "--run", RUN_SECONDS, "--crop", cards.SHOWN[name]), TEMPLATE_WIDTH),
        place(name),
    )
    if name in IN_README:
        save(narrowed(photographed(url, file, "--run", RUN_SECONDS), README_WIDTH), ASSETS / f"{name}.jpg")


def shoot(server: sampled.Server, name: str) -> None:
    """Remake the pictures of a name."""
    url = server.url
    if name in sampled.SAMPLED:
        save(sampled.SAMPLED[name](server), place(name))
    elif name in GRAPHS:
        shoot_graph(url, name, GRAPHS[name])
    elif name in PARTS:
        template, ids = PARTS[name]
        picture = photographed(url, TEMPLATES / f"{template}.json", "--crop", ",".join(map(str, ids)))
        save(narrowed(picture, HELP_WIDTH), place(name))
    else:
        shoot_template(url, name)


def tried(server: sampled.Server, name: str) -> str | None:
    """Remake the pictures of a name, or say why not; the old ones stay then."""
    try:
        return shoot(server, name)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"{name}: not remade: {error}"
