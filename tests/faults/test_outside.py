"""What SECURITY.md promises of the shell command: it writes where it is told to and in the cache, and runs nothing."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.files.media.images import save_image
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("watched.py")
SOURCES = ("comfyui_lyra", "kernels_glue", "nodes", "locales", "workflows")
ELSEWHERE = ("home", "temp", "work", "input")  # that stay as they are
CAMERA = ["--frames", "9", "--width", "64", "--height", "48", "--preset", "left"]


def verbs(given: Path, out: Path) -> list[list[str]]:
    """A way from files through the models to splats, and what looks at files on the way."""
    words = f"""
        path {out}/cameras.json --picture {out}/cameras.png
        path {out}/colmap --format colmap
        render {given}/scene.ply {out}/videos --every 4
        convert {given}/scene.ply {out}/scene.ply
        convert {given}/scene.ply {out}/scene.spz
        convert {out}/scene.spz {out}/scene.usdc
        convert {given}/scene.ply {out}/scene.sog
        convert {given}/scene.ply {out}/scene.html
        convert {out}/cameras.json {out}/npz --format npz
        info {given}/scene.ply
        info {given}/evil.pt
        info {given}/broken.safetensors
        geometry {given}/photo.png {out}/photo.safetensors --depth {given}/depth.png --meaning near-far --near 1 --far 5
        generate {out}/photo.safetensors {out}/scene --steps 2 --preset left --guidance 0
        decode {out}/scene {out}/view.mp4
        reconstruct {out}/scene {out}/splats --keep 0.02
        convert {out}/splats {out}/moments.usda --metres 2.5
        dataset {out}/scene {out}/dataset --every 8 --geometry {out}/photo.safetensors
        convert-weights {ROOT}/comfyui_lyra/mini/mini_recon_static.safetensors {out}/recon.safetensors
        check {given}/evil.pt --out {out}/check.md
        plan
        fetch gen3c {out}/models
    """
    found = [line.split() for line in words.strip().splitlines()]
    if not all(map(find_spec, ("gaussforge", "pxr"))):  # optional libraries
        found = [verb for verb in found if not any(word.endswith((".spz", ".sog", ".usdc")) for word in verb)]
    return [verb + CAMERA if verb[0] in ("path", "render") else verb for verb in found]


class Evil:
    """Pickles as a command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder with all places, what the program told, and what the other places held before and hold now."""
    base = tmp_path_factory.mktemp("outside").resolve()
    for name in (*ELSEWHERE, "out", "cache"):
        (base / name).mkdir()
    given = base / "input"
    save_ply(given / "scene.ply", demo_scene()[::50])
    save_image(given / "photo.png", torch.rand(96, 160, 3))
    save_image(given / "depth.png", torch.linspace(0.2, 0.9, 96)[:, None, None].repeat(1, 160, 3))
    torch.save({"a": torch.ones(2), "evil": Evil()}, given / "evil.pt")
    (given / "broken.safetensors").write_bytes(b"\x10" + bytes(99))
    environment = os.environ | {
        "HOME": str(base / "home"), "TMPDIR": str(base / "temp"), "LYRA_CACHE": str(base / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
    before = state(base)
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input=json.dumps({"verbs": verbs(given, base / "out")}), env=environment,
        cwd=base / "work", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return base, json.loads(done.stdout) | {"stderr": done.stderr}, before, state(base)


def state(base: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the pack and of the places that must not change."""
    roots = [ROOT / name for name in SOURCES] + [base / name for name in ELSEWHERE]
    found = (path for root in roots for path in root.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()}


@pytest.mark.slow
def test_verbs_write_below_what_they_are_told_and_the_cache_only(told):
    base, found, before, now = told
    allowed = (base / "out", base / "cache", Path(os.devnull))
    written = [Path(name) for name in found["written"]]
    assert not [path for path in written if not any(path == root or root in path.parents for root in allowed)]
    assert now == before
    assert len([path for path in written if base / "out" in path.parents]) > 30  # the watching works


@pytest.mark.slow
def test_verbs_start_no_process_open_no_connection_and_unpickle_nothing(told):
    base, found, _, _ = told
    assert not found["tried"]
    assert not list(base.rglob("ran"))


@pytest.mark.slow
def test_the_verbs_did_their_work(told):
    base, found, _, _ = told
    out = base / "out"
    assert (out / "splats").is_dir() and (out / "view.mp4").stat().st_size > 0 and not (out / "models").exists()
    failed = [words[0] for words, code in zip(verbs(base, out), found["codes"], strict=True) if code]
    assert set(failed) <= {"check", "fetch"}, found["stderr"][-3000:]  # a file that is no model; nothing is accepted
    assert "Nothing is downloaded before you accept" in found["stderr"]
    assert "Traceback" not in found["stderr"]


def test_the_watching_sees_what_it_is_to_see(tmp_path):
    acts = f"""
import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import watched; sys.addaudithook(watched.watch)
import pickle, subprocess
subprocess.run([sys.executable, "-c", ""])
pickle.loads(b"cos\\nsystem\\n.")
open({str(tmp_path / "new")!r}, "w").close()
print(watched.tried, watched.written)"""
    done = subprocess.run([sys.executable, "-c", acts], capture_output=True, text=True, check=True)
    for word in ("subprocess.Popen", "pickle.find_class", str(tmp_path / "new")):
        assert word in done.stdout
