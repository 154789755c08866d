import json
from dataclasses import replace

from lyra_pack.comfyui_lyra.splats.gaussians import GaussianSequence
from lyra_pack.comfyui_lyra.viewer.folder import KEPT, write_folder
from unpacking import unpacked


def test_a_scene_is_written_once_and_another_beside_it(splats, tmp_path):
    sequence = GaussianSequence(frames=(splats, splats[:300]), times=(0, 8))
    folder = write_folder(tmp_path, sequence, fps=12.0)
    scene = json.loads((folder / "scene.json").read_text())
    assert [moment["time"] for moment in scene["moments"]] == [0, 8]
    data = (folder / scene["moments"][1]["url"]).read_bytes()
    assert len(data) == scene["moments"][1]["bytes"] and len(unpacked(data)) > 200
    (folder / "mark").touch()
    assert (write_folder(tmp_path, sequence, fps=12.0) / "mark").exists()
    changed = replace(splats, opacities=splats.opacities * 0.9)
    others = [
        write_folder(tmp_path, sequence, fps=24.0),
        write_folder(tmp_path, replace(sequence, times=(0, 9)), fps=12.0),
        write_folder(tmp_path, replace(sequence, frames=(changed, splats[:300])), fps=12.0),
    ]
    assert len({folder, *others}) == 4


def test_old_scenes_go(splats, tmp_path):
    made = [write_folder(tmp_path, GaussianSequence(frames=(splats[:1],), times=(i,))) for i in range(KEPT + 3)]
    assert len(list(tmp_path.iterdir())) == KEPT and made[-1].exists()
