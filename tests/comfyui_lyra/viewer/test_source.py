import json
import threading
import urllib.error
import urllib.request

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.files.splats.sequence import save_sequence
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.viewer.scene import focus_of, opening
from lyra_pack.comfyui_lyra.viewer.serve import make_server
from lyra_pack.comfyui_lyra.viewer.source import stored
from unpacking import unpacked

PATHS = six_paths(pinhole_camera(96, 64, 50), PathSettings(frames=3))


@pytest.fixture
def folder(splats, tmp_path):
    sequence = GaussianSequence(frames=(splats, splats[:300]), times=(0, 8))
    save_sequence(tmp_path / "clip", sequence, PATHS, fps=12.0)
    return tmp_path / "clip"


@pytest.fixture
def server(folder):
    server, address = make_server(stored(folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as reply:
        return reply.read()


def test_a_saved_sequence_is_a_moving_scene(folder):
    scene = stored(folder)
    assert (scene.times, scene.fps) == ((0, 8), 12.0)
    assert scene.counts == pytest.approx((700, 300), rel=0.1)
    assert [path.name for path in scene.cameras] == [path.name for path in PATHS]


def test_numbered_files_without_a_manifest_are_moments_in_their_order(folder):
    (folder / "manifest.json").unlink()
    assert [file.name for file in stored(folder).files] == ["00000.ply", "00001.ply"]


def test_one_file_is_a_still_scene(splats, tmp_path):
    save_ply(tmp_path / "a.ply", splats)
    about, _ = stored(tmp_path / "a.ply").describe()
    assert about["moments"][0]["time"] == 0 and about["title"] == "a"


@pytest.mark.parametrize("frames", [[], [{"file": "../a.ply", "time": 0, "splats": 1}], [{"time": 0}]])
def test_a_manifest_that_names_no_files_of_its_folder_is_refused(folder, frames):
    (folder / "manifest.json").write_text(json.dumps({"format": "lyra-splat-sequence", "fps": 24, "frames": frames}))
    with pytest.raises(ValueError, match="manifest|moments"):
        stored(folder)


def test_a_folder_without_splats_is_told(tmp_path):
    with pytest.raises(ValueError, match="no sequence of splats"):
        stored(tmp_path)
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "gone")


def test_the_server_gives_page_scene_and_moments(server):
    base = server.split("?")[0]
    assert b"main.mjs" in get(server) and b"class Painter" in get(base + "draw.mjs")
    scene = json.loads(get(base + "scene.json"))
    assert len(unpacked(get(base + scene["moments"][1]["url"]))) > 200


@pytest.mark.parametrize("name", ["../html.py", "..%2fhtml.py", "/etc/passwd", "9.bin", "page"])
def test_the_server_gives_nothing_else(server, name):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server.split("?")[0] + name)


def test_the_server_is_this_machines_and_answers_only_who_knows_its_address(server):
    assert server.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("/".join(server.split("/")[:3]) + "/scene.json")


def test_one_stands_at_the_first_camera_or_where_all_is_seen(splats):
    assert opening(splats, PATHS).c2w.equal(PATHS[0].c2w[:1])
    camera = opening(splats)
    seen = (splats.means - camera.c2w[0, :3, 3]) @ camera.c2w[0, :3, :3]
    assert (seen[:, 2] > 0).float().mean() > 0.7
    ahead = splats[splats.means[:, 2] > 0]
    assert focus_of(ahead, opening(ahead, PATHS)) == pytest.approx(
        float(ahead.means[ahead.means[:, 2] > 0.1, 2].median())
    )
    assert torch.isfinite(opening(splats[:0]).c2w).all()
