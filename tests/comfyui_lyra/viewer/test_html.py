import base64
import json
import re
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.viewer.html import PAGE, bundle, write_html
from unpacking import unpacked


@pytest.fixture
def sequence(splats) -> GaussianSequence:
    return GaussianSequence(frames=(splats, splats[:300]), times=(0, 8))


def test_a_page_holds_every_moment_and_the_paths(sequence, tmp_path):
    paths = six_paths(pinhole_camera(96, 64, 50), PathSettings(frames=3))
    size = write_html(tmp_path / "scene.html", sequence, paths, fps=12.0, title="a </script> b")
    text = (tmp_path / "scene.html").read_text("utf-8")
    assert size == (tmp_path / "scene.html").stat().st_size
    scene = json.loads(re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)[1])
    assert scene["title"] == "a </script> b"
    assert [path["name"] for path in scene["paths"]] == [path.name for path in paths]
    assert [moment["time"] for moment in scene["moments"]] == [0, 8]
    assert torch.tensor(scene["paths"][1]["c2w"]).allclose(paths[1].c2w[:, :3].flatten(1), atol=1e-6)
    assert scene["paths"][0]["K"][0] == pytest.approx(paths[0].K[0][[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
    moments = re.findall(r'<script type="text/plain" id="moment-\d">(.*?)</script>', text)
    assert len(unpacked(base64.b64decode(moments[1]))) == int((sequence.frames[1].opacities >= 1 / 255).sum())


def test_a_page_asks_nothing_of_a_network(sequence, tmp_path):
    write_html(tmp_path / "scene.html", sequence)
    text = (tmp_path / "scene.html").read_text("utf-8")
    assert not re.findall(r"https?://|\bsrc=|href=\"(?!data:)|\bimport\b|^export ", text, re.M)


def test_a_page_too_large_for_browsers_is_refused_with_what_to_do(sequence, tmp_path):
    with pytest.raises(ValueError, match=r"--times.*--keep"):
        write_html(tmp_path / "scene.html", sequence, largest=60_000)
    assert not list(tmp_path.iterdir())


def test_the_modules_fit_into_one_without_two_things_of_a_name():
    names = re.findall(r"^(?:const|let|class|(?:async )?function) (\w+)", bundle(), re.M)
    names += [name for group in re.findall(r"^const \[([^\]]*)\]", bundle(), re.M) for name in group.split(", ")]
    assert len(names) == len(set(names)) > 50


def test_every_module_is_part_of_the_page():
    found = {path.stem for path in PAGE.glob("*.mjs")}
    assert all(
        f"from './{name}.mjs'" in "".join(p.read_text("utf-8") for p in PAGE.glob("*.mjs")) for name in found - {"main"}
    )


def test_the_page_stays_small():
    files = [path for path in Path(PAGE).iterdir()]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert sum(path.stat().st_size for path in files) <= 60_000
    assert sum(lines.values()) <= 1500 and max(lines.values()) < 400
