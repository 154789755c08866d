"""Every shipped workflow in a real ComfyUI.

Those that the pack's own models suffice for run, with fewer and smaller pictures; those that need other weights are
validated beside empty files of the right names.
"""

import json
from pathlib import Path

import av
import pytest
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from PIL import Image

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = [
    path.stem for path in sorted((ROOT / "workflows").glob("*.json")) if '"models"' in path.read_text(encoding="utf-8")
]  # workflows that need weights which do not come with the pack
QUICK = {
    "LyraGenerateLatents": {"steps": 2},
    "LyraReconstruct": {"keep": 0.11},  # little more than 10 000 splats
    "LyraRenderSplats": {"width": 96, "height": 64, "every": 8},
    "LyraTrainRecon": {"steps": 10},
    "LyraRefineSplats": {"steps": 2},
    "LyraEvaluate": {"every": 16},
    "SplatToMesh": {"resolution": 64},
    "KSampler": {"steps": 2},
    "KSamplerAdvanced": {"steps": 2, "start_at_step": 0, "end_at_step": 1},
}


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


def run_quickly(comfyui, name: str) -> dict[str, dict]:
    """What each node of a workflow has shown, by its type or, where there are several, its title."""
    saved = workflow(name)
    prompt, titles = comfyui.api_form(saved), {str(node["id"]): node.get("title") for node in saved["nodes"]}
    for node in prompt.values():
        node["inputs"] |= {
            name: value for name, value in QUICK.get(node["class_type"], {}).items() if name in node["inputs"]
        }
    shown = comfyui.run(prompt)
    kinds = [prompt[key]["class_type"] for key in shown]
    return {
        kind if kinds.count(kind) == 1 else titles.get(key, key): shown[key]
        for key, kind in zip(shown, kinds, strict=True)
    }


def frames_of(comfyui, shown: dict[str, dict]) -> list:
    """The pictures of the saved video."""
    (video,) = written(comfyui, shown["SaveVideo"]["images"])
    with av.open(str(video)) as clip:
        return [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]


def see_a_scene(comfyui, shown: dict[str, dict], count: int, size: tuple[int, int]) -> None:
    """Assert that a PLY was saved and opened in the viewer, and that the video has so many frames with something in."""
    (ply,) = written(comfyui, shown["LyraSaveSplats"]["3d"])
    assert len(load_ply(ply)) > 10_000
    viewed, camera, _ = shown["PreviewGaussianSplat"]["result"]
    assert (comfyui.base / "temp" / viewed).read_bytes() == ply.read_bytes()
    assert camera["target"]["z"] == pytest.approx(-1)
    frames = frames_of(comfyui, shown)
    assert [frame.shape for frame in frames] == [(*size, 3)] * count
    assert all(frame.std() > 10 for frame in frames)


@pytest.mark.slow
def test_a_picture_becomes_a_scene_without_any_file(comfyui):
    shown = run_quickly(comfyui, "picture_to_3d")
    see_a_scene(comfyui, shown, 6 * 3, (64, 96))
    stored = comfyui.base / "output" / "lyra" / "picture_to_3d"
    assert len(list(stored.glob("*/latent/*.safetensors"))) == len(list(stored.glob("*/rgb/*.mp4"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["native_ksampler", "native_easycache", "native_two_stages"])
def test_cores_samplers_film_a_scene(comfyui, long, name):
    if name != "native_ksampler" and not long:
        pytest.skip("one of three in the short form (--long runs all)")
    frames = frames_of(comfyui, run_quickly(comfyui, name))
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 6 * 3
    assert all(frame.std() > 5 for frame in frames)


@pytest.mark.slow
def test_the_ksampler_template_makes_what_generate_latents_makes(comfyui):
    prompt = comfyui.api_form(workflow("native_ksampler"))
    ids = {node["class_type"]: key for key, node in prompt.items()}
    sampler, shown = (prompt[ids[kind]]["inputs"] for kind in ("KSampler", "LyraGEN3CConditioning"))
    sampler["steps"] = 3
    given = {name: shown[name] for name in ("tokenizer", "geometry", "cameras", "foreground_masking")}
    given |= {"teacher": [ids["LyraLoadTeacher"], 0], "seed": sampler["seed"], "steps": 3, "speed": 0.0}
    given |= {"guidance": sampler["cfg"] - 1, "solver": sampler["sampler_name"]}
    given |= {"name": "by_generate", "resume": False, "save_video": False}
    stored = {"filename_prefix": "lyra/by_ksampler", "clip": "clip", "reference_format": False}
    saved = {"class_type": "LyraSaveLatents", "inputs": stored | {"latents": [ids["LyraLatentsFromCore"], 0]}}
    others = {key: node for key, node in prompt.items() if node["class_type"] != "SaveVideo"}
    comfyui.run(others | {"saved": saved, "generate": {"class_type": "LyraGenerateLatents", "inputs": given}})

    output = comfyui.base / "output" / "lyra"
    folder, *_ = sorted(output.glob("by_ksampler*"))  # the second is what remembers how it was made
    found, expected = load_scene(folder), load_scene(output / "by_generate")
    assert [path.name for path in found.cameras] == [path.name for path in expected.cameras]
    moving, wanted = (scene.latents.values[:, :, 1:] for scene in (found, expected))
    assert len(moving) == 6 and (moving - wanted).norm() / wanted.norm() < 1e-4


def test_the_editor_is_offered_our_boxes(comfyui):
    offered = {entry["name"] for entry in comfyui.get("/api/global_subgraphs").values()}
    assert {path.stem for path in (ROOT / "subgraphs").glob("*.json")} <= offered


def test_your_photo_and_its_depth_are_taken(comfyui, empty_files):
    comfyui.cancel(comfyui.submit(comfyui.api_form(workflow("depth_picture_to_3d"))))  # Refused, if it is not valid


@pytest.mark.slow
def test_a_clip_becomes_three_moments(comfyui):
    shown = run_quickly(comfyui, "clip_to_4d")
    see_a_scene(comfyui, shown, 3, (64, 3 * 96))
    folder = comfyui.base / "output" / shown["LyraSaveSplatSequence"]["text"][0].split(": ")[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [frame["time"] for frame in manifest["frames"]] == [0, 8, 16]
    first, middle, last = (load_ply(folder / f"0000{i}.ply").means for i in range(3))
    assert not first.equal(middle) and not middle.equal(last)


@pytest.mark.slow
def test_shipped_latents_become_a_scene_and_are_judged(comfyui):
    shown = run_quickly(comfyui, "latents_to_3d")
    see_a_scene(comfyui, shown, 6 * 3, (64, 96))
    assert float(shown["LyraEvaluate"]["text"][0].split()[1]) > 15  # dB; fog has 10
    assert len(shown["Frames of the second path"]["images"]) == 17


@pytest.mark.slow
def test_splat_tools_mix_with_cores_nodes(comfyui):
    shown = run_quickly(comfyui, "splat_tools")
    frames = frames_of(comfyui, shown)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 4
    (normals,) = written(comfyui, shown["Core's Render Splat: normals"]["images"])
    assert Image.open(normals).size == (480, 272)
    saved, *_ = shown["SaveGaussianSplat"]["result"]
    assert saved.removesuffix(" [output]").endswith(".spz") and list((comfyui.base / "output" / "3d").glob("*.spz"))
    mesh, *_ = shown["Preview3D"]["result"]
    assert mesh.removesuffix(" [output]").endswith(".glb")


@pytest.mark.slow
def test_a_decoder_is_trained_on_what_was_generated_in_the_same_run(comfyui):
    shown = run_quickly(comfyui, "train_decoder")
    assert len(shown["LyraTrainRecon"]["images"]) == 1
    assert frames_of(comfyui, shown)[0].shape == (64, 96, 3)
    decoder = comfyui.base / "output" / "lyra" / "decoders" / "my_decoder"
    assert len(list(decoder.glob("mini_recon_*.safetensors"))) == 1


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_workflow_that_needs_downloads_is_valid_once_they_are_there(comfyui, empty_files, name):
    comfyui.cancel(comfyui.submit(comfyui.api_form(workflow(name))))  # Refused, if not


def test_a_workflow_says_what_it_needs_before_the_downloads_are_there(comfyui):
    with pytest.raises(comfyui.Refused, match=r"moge_2_vitl_normal_fp16.safetensors.*not in"):
        comfyui.submit(comfyui.api_form(workflow("moge_to_3d")))


def moments_shown(comfyui, shown: dict) -> list[dict]:
    """What Explore Splats gave to its page: the moments of the scene, whose files are there."""
    (file,) = written(comfyui, shown["lyra_view"])
    moments = json.loads(file.read_text())["moments"]
    assert all((file.parent / moment["url"]).stat().st_size == moment["bytes"] for moment in moments)
    return moments


@pytest.mark.slow
def test_a_scene_is_walked_in_and_filmed(comfyui):
    shown = run_quickly(comfyui, "explore_scene")
    assert len(moments_shown(comfyui, shown["LyraExploreSplats"])) == 1
    assert [frame.shape for frame in frames_of(comfyui, shown)] == [(64, 96, 3)] * 4
    (picture,) = written(comfyui, shown["PreviewImage"]["images"])
    assert Image.open(picture).size == (480, 272)


@pytest.mark.slow
def test_a_moving_scene_is_shown_moment_by_moment(comfyui, long):
    if not long:
        pytest.skip("--long: the node's own tests and clip_to_4d are the short form")
    shown = run_quickly(comfyui, "explore_clip")
    assert [moment["time"] for moment in moments_shown(comfyui, shown["LyraExploreSplats"])] == [0, 4, 8, 12, 16]


@pytest.mark.slow
def test_a_picture_is_filmed_again_through_keyframes_set_in_its_scene(comfyui):
    shown = run_quickly(comfyui, "film_again")
    stored = comfyui.base / "output" / "lyra"
    assert len(list((stored / "film_again").glob("*/latent/*.safetensors"))) == 1
    first, both = (
        moments_shown(comfyui, shown[title])[0]["splats"]
        for title in ("Explore Splats: set keyframes", "Explore Splats: both")
    )
    assert 0 < first < both
