import copy
import inspect
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.model_management as management  # noqa: E402
import comfy.utils  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS  # noqa: E402
from lyra_pack.comfyui_lyra.files.media.images import to_bytes  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, frames_of, generate  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.text import zero_text  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.fit import fit  # noqa: E402
from lyra_pack.comfyui_lyra.sources.geometry import from_depth  # noqa: E402
from lyra_pack.nodes.camera.paths import CameraPaths  # noqa: E402
from lyra_pack.nodes.comfy import devices, progress, watch  # noqa: E402
from lyra_pack.nodes.comfy.patchers import Model, in_core  # noqa: E402
from lyra_pack.nodes.geometry.sources import GeometryFromDepth  # noqa: E402
from lyra_pack.nodes.latents.generate import GenerateLatents, depth_by, text_of  # noqa: E402
from lyra_pack.nodes.models.plan import Plan  # noqa: E402
from lyra_pack.nodes.models.teacher import TeacherModel, teacher_of  # noqa: E402
from lyra_pack.nodes.native.teacher import model_of  # noqa: E402
from lyra_pack.nodes.training.train import TrainRecon  # noqa: E402

WIDGETS = {
    "seed": 1, "steps": 4, "guidance": 0.0, "solver": "euler", "speed": 0.0, "name": "scene", "resume": True,
    "save_video": False, "foreground_masking": True, "mode": "as set",
}  # fmt: skip


@pytest.fixture
def scene():
    """A picture of 96x80 with depth, and two paths around its camera: larger than the models, and of another shape."""
    depth = torch.full((1, 80, 96), 6.0)
    depth[:, 20:60, 30:60] = 3
    frames = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(0))
    geometry = from_depth(frames, depth, fov=50)
    return geometry, camera_paths(geometry.cameras, PathSettings("six_paths", 9))[:2]


@pytest.fixture
def teacher(tiny_teacher) -> TeacherModel:
    return teacher_of(model_of(replace(tiny_teacher, network=copy.deepcopy(tiny_teacher.network))))


@pytest.fixture
def tokenizer(tiny_tokenizer) -> Model:
    return Model(patcher=in_core(copy.deepcopy(tiny_tokenizer)), config=tiny_tokenizer.config, file="tiny")


@pytest.fixture
def make(teacher, tokenizer, scene, folders):
    """The node, called on the scene."""

    def call(**changes):
        return GenerateLatents.execute(teacher, tokenizer, *scene, **WIDGETS | changes).args[0]

    return call


def alone(make, folders):
    """What the node makes, and nothing of it left on the disk, where it would be found again."""
    made = make(name="alone")
    for folder in (folders / "output" / "lyra").iterdir():
        shutil.rmtree(folder)
    return made


@pytest.fixture
def bar(monkeypatch) -> list[tuple]:
    """What reaches ComfyUI's progress bar: done, total, preview."""
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *args, **_: seen.append(args))
    return seen


def test_the_widgets_of_the_node_are_those_of_these_tests():
    widgets = [i.id for i in GenerateLatents.define_schema().inputs][4:-3]
    assert widgets == list(WIDGETS)
    assert list(inspect.signature(GenerateLatents.execute).parameters)[4:-3] == widgets


def test_latents_are_the_librarys_and_lie_in_the_output_folder(make, scene, tiny_teacher, tiny_tokenizer, folders):
    found = make(save_video=True)
    geometry, paths = fit(scene[0], 32, 48), tuple(path.resized(32, 48) for path in scene[1])
    settings = GenerateSettings(steps=4, guidance=0.0)
    expected = generate(tiny_teacher, tiny_tokenizer, geometry, paths, settings=settings)
    torch.testing.assert_close(found.latents.values, expected.latents.values, rtol=1e-4, atol=1e-4)
    assert (found.family, found.dynamic) == ("tiny", False)
    assert [(path.name, path.width, path.height) for path in found.cameras] == [("left", 48, 32), ("right", 48, 32)]
    root = folders / "output" / "lyra" / "scene"
    assert torch.equal(load_sdg(root).latents.values, found.latents.values)
    assert sorted(path.name for path in root.iterdir()) == ["0", "1"]
    assert (root / "1" / "rgb" / "scene.mp4").is_file() and (folders / "output" / "lyra" / "scene.lyra").is_dir()


def test_a_picture_is_fitted_once_whatever_size_its_node_was_told(teacher, tokenizer, scene, folders):
    """From picture to latents: only Generate brings it to the teacher's 48x32."""
    source, values, made = scene[0], 6 * scene[0].depth, []
    depth = {"meaning": "depth", "near": 1.0, "far": 10.0, "fov": 50.0, "fit": "crop", "scale": "auto"}
    moves = {"preset": "left", "movement": 1.0, "rotation": "center_facing", "seed": 1, "frames": 9, "fps": 24.0}
    moves |= {"fov": 50.0, "center_depth": 1.0, "draw": "seeded", "width": 64, "height": 64}
    for width, height in ((48, 32), (1280, 704), (96, 80)):
        image = source.frames.clone()
        (geometry,) = GeometryFromDepth.execute(image, values, width=width, height=height, **depth).args
        assert geometry.frames.data_ptr() == image.data_ptr(), "no copy of the picture"
        (paths,) = CameraPaths.execute(**moves, geometry=geometry).args
        assert (paths[0].width, paths[0].height) == (width, height)
        widgets = WIDGETS | {"steps": 2, "name": f"of {width}"}
        made.append(GenerateLatents.execute(teacher, tokenizer, geometry, paths, **widgets))
    latents = [each.args[0] for each in made]
    expected = fit(source, 32, 48)
    assert len({each.provenance["geometry"] for each in latents}) == 1
    for each in latents:
        torch.testing.assert_close(each.cameras[0].K[0], expected.cameras.K[0], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(each.latents.values, latents[0].latents.values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"steps": 3}, {"guidance": 1.0}, {"solver": "dpmpp_2m"}, {"speed": 1.0}]
)
def test_every_widget_counts(make, change):
    assert not torch.equal(make(name="a", **change).latents.values, make(name="b").latents.values)


def test_a_mode_decides_instead_of_the_widgets_is_part_of_the_key_and_is_told(make, monkeypatch):
    told = []
    monkeypatch.setattr(progress, "show_text", lambda cls, text: told.append(text))
    found = make(mode="fast", steps=3)
    assert {name: found.provenance[name] for name in ("steps", "solver", "guidance", "step_cache")} == {
        "steps": "10", "solver": "dpmpp_2m", "guidance": "0.0", "step_cache": "0.1",
    }  # fmt: skip
    assert "late_attention" not in found.provenance  # it could not run on a CPU: exact attention was used
    assert "10 steps of dpmpp_2m" in told[-1] and "exact attention instead, slower" in told[-1]


def test_foreground_masking_is_passed_on(make):
    assert make(foreground_masking=False).provenance["foreground_masking"] == "False"


def test_the_bar_moves_over_all_paths_and_shows_pictures(make, bar):
    make()
    assert [args[:2] for args in bar if args[2]] == [(1, 8), (4, 8), (7, 8), (8, 8)]  # the last one is decoded
    assert bar[-2] == (8, 8, None)
    kind, picture, size = bar[0][2]
    assert (kind, picture.size, size) == ("JPEG", (24, 16), 512)


def blocks_of(teacher: TeacherModel) -> list[torch.nn.Module]:
    """The transformer's blocks."""
    return list(teacher.network.diffusion_model.blocks.values())


class Cancel:
    """Presses Cancel when a number of the transformer's blocks have been computed."""

    def __init__(self, block: int, teacher: TeacherModel):
        self.blocks, self.block = 0, block
        for layer in blocks_of(teacher):
            layer.register_forward_hook(self.count)

    def count(self, *_) -> None:
        self.blocks += 1
        if self.blocks == self.block:
            management.interrupt_current_processing(True)


def test_cancelling_stops_within_a_block_and_the_next_run_goes_on(make, teacher, folders, bar):
    whole = alone(make, folders)
    cancel = Cancel(2 * 4 + 3, teacher)  # in the second step of the second path: 2 blocks, 4 steps
    with pytest.raises(management.InterruptProcessingException):
        make()
    assert cancel.blocks == 11
    root = folders / "output" / "lyra" / "scene"
    assert (root / "0" / "latent" / "scene.safetensors").is_file() and not (root / "1").exists()
    cancel.blocks, cancel.block = 0, -1
    bar.clear()
    found = make()
    assert cancel.blocks == 2 * 4  # of the second path alone
    assert (bar[0][:2], bar[-1][:2]) == ((4, 8), (8, 8))
    assert torch.equal(found.latents.values, whole.latents.values)


def test_other_inputs_go_on_in_a_folder_of_their_own(make, teacher, folders, monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "show_text", lambda node, text: shown.append(text))
    first, other = make(), make(seed=2)
    third = make(seed=2, steps=5)
    assert shown[-1] == "2 paths: lyra/scene_3\n'scene' is taken; these are 'scene_3'"
    blocks = Cancel(-1, teacher)
    for changes, expected in (({"seed": 2}, other), ({}, first), ({"seed": 2, "steps": 5}, third)):
        assert torch.equal(make(**changes).latents.values, expected.latents.values)
    assert blocks.blocks == 0
    clips = {path.stem for path in (folders / "output" / "lyra").rglob("*.safetensors")}
    assert clips == {"scene", "scene_2", "scene_3"}  # so that one training can learn from all of them


def test_a_stopped_scene_of_other_inputs_goes_on_where_it_was(make, teacher):
    make()
    cancel = Cancel(2 * 4 + 3, teacher)
    with pytest.raises(management.InterruptProcessingException):
        make(seed=2)
    cancel.blocks, cancel.block = 0, -1
    make(seed=2)
    assert cancel.blocks == 2 * 4


def test_a_scene_is_begun_anew_on_request(make, folders):
    first, again = make(), make(resume=False)
    other = make(resume=False, seed=2)
    assert torch.equal(again.latents.values, first.latents.values)
    assert not torch.equal(other.latents.values, first.latents.values)
    names = sorted(path.name for path in (folders / "output" / "lyra").iterdir())
    assert names == ["scene", "scene.lyra", "scene_2", "scene_2.lyra", "scene_3", "scene_3.lyra"]


@pytest.mark.parametrize("name", ["../scene", "a/b", "", ".hidden"])
def test_a_name_cannot_lead_elsewhere(make, name, folders):
    with pytest.raises(ValueError, match=f"'{name}' cannot be the name of a folder"):
        make(name=name)
    assert not list((folders / "output").rglob("*.safetensors"))


def test_a_scene_under_another_name_is_not_made_again(make, teacher, folders):
    first = make()
    cancel = Cancel(1, teacher)
    again = make(name="castle")
    assert cancel.blocks == 0 and torch.equal(again.latents.values, first.latents.values)
    assert (folders / "output" / "lyra" / "castle" / "1" / "latent" / "castle.safetensors").is_file()
    (folders / "output" / "lyra" / "castle").rename(folders / "output" / "lyra" / "tower")
    shutil.rmtree(folders / "output" / "lyra" / "scene")
    make(name="tower")
    assert cancel.blocks == 0
    with pytest.raises(management.InterruptProcessingException):
        make(name="tower", resume=False)


def test_out_of_memory_is_tried_again_with_more_room_from_where_it_was(make, teacher, folders, monkeypatch, caplog):
    whole, sizes, passes, load = alone(make, folders), [], [], devices.load

    def in_the_second_path(*_) -> None:
        passes.append(1)
        if len(passes) == 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(devices, "load", lambda *models, size: (sizes.append(size), load(*models, size=size)))
    hook = blocks_of(teacher)[1].register_forward_hook(in_the_second_path)
    found = make()
    hook.remove()
    assert len(passes) == 6 + 4 and len(sizes) == 2 and sizes[1] == 2 * sizes[0] > 0
    assert "out of memory, trying again" in caplog.text
    assert torch.equal(found.latents.values, whole.latents.values)

    def always(*_) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    blocks_of(teacher)[1].register_forward_hook(always)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        make(name="never", seed=2)
    assert len(sizes) == 5 and sizes[4] == devices.total_memory()  # at last nothing of the weights stays there


def test_warnings_and_the_folder_are_shown_on_the_node(make, teacher, tokenizer, scene, monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "show_text", lambda node, text: shown.append(text))
    make()
    assert (shown[0], shown[-1]) == ("path 1 of 2: left", "2 paths: lyra/scene")
    zoomed = camera_paths(pinhole_camera(96, 80, 30), PathSettings("left", 9))
    GenerateLatents.execute(teacher, tokenizer, scene[0], zoomed, **WIDGETS | {"name": "zoomed"})
    assert shown[-1].startswith("1 path: lyra/zoomed\ncamera path 'left' does not begin at the picture's camera")


def test_the_time_that_is_left_is_shown_once_two_steps_are_done(make, teacher, monkeypatch):
    shown, blocks = [], Cancel(-1, teacher)
    monkeypatch.setattr(progress, "show_text", lambda node, text: shown.append(text))
    monkeypatch.setattr(watch, "perf_counter", lambda: 1000 + 300.0 * blocks.blocks)  # two blocks a step: ten minutes
    make()
    assert shown == [
        "path 1 of 2: left", "path 1 of 2: left, about 60 min left", "path 2 of 2: right, about 60 min left",
        "path 2 of 2: right, about 30 min left", "2 paths: lyra/scene",
    ]  # fmt: skip


def test_what_does_not_fit_is_said(make, teacher, tokenizer, scene):
    geometry, paths = scene
    long = camera_paths(geometry.cameras, PathSettings("left", 17))
    with pytest.raises(ValueError, match="17 frames from one picture need a depth estimator"):
        GenerateLatents.execute(teacher, tokenizer, geometry, long, **WIDGETS)
    small = tuple(path.resized(40, 48) for path in paths)
    with pytest.raises(ValueError, match="'left' is of 48x40 pictures, the geometry of 96x80; make the camera paths"):
        GenerateLatents.execute(teacher, tokenizer, geometry, small, **WIDGETS)
    with pytest.raises(ValueError, match="this VAE is NoneType"):
        GenerateLatents.execute(teacher, None, geometry, paths, **WIDGETS)


def test_the_plan_counts_one_pass_a_step_without_guidance(teacher, scene, folders):
    texts = [Plan.execute(scene[1], "0", 4, teacher=teacher, guidance=guidance).args[0] for guidance in (1.0, 0.0)]
    guided, alone = (float(re.search(r"generate latents: (\S+) TFLOP", text)[1]) for text in texts)
    assert alone == pytest.approx(guided / 2, rel=0.01)


class Moge:
    """Core's MoGe model, as far as it is asked: a floor that comes nearer, with sky above, for every picture."""

    def __init__(self):
        self.seen = []

    def infer(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(tuple(image.shape))
        mask = torch.ones(1, *image.shape[2:], dtype=torch.bool)
        mask[:, :4] = False
        return {"depth": torch.linspace(6, 5, image.shape[2])[:, None].expand(mask.shape), "mask": mask}


def test_longer_paths_from_a_picture_take_depth_from_cores_moge(teacher, tokenizer, scene, folders):
    moge = Moge()
    floor = torch.linspace(6, 5, 80)[:, None].expand(1, 80, 96)
    geometry = from_depth(scene[0].frames, floor, fov=50)
    long = camera_paths(geometry.cameras, PathSettings("left", 17))
    found, folder = GenerateLatents.execute(teacher, tokenizer, geometry, long, **WIDGETS, moge_model=moge).args
    assert folder == "lyra/scene" and TrainRecon.validate_inputs(folder) is True
    assert (found.chunks, found.latents.values.shape) == (2, (1, 16, 4, 4, 6))
    assert moge.seen == [(1, 3, 32, 48)]
    loaded = [entry.model for entry in management.current_loaded_models]
    assert teacher.patcher in loaded and tokenizer.patcher in loaded


def prompt(rows: int, value: float, mask: int | None = None, dim: int = 12) -> list:
    about = {} if mask is None else {"attention_mask": (torch.arange(rows) < mask).long()[None]}
    return [[torch.full((1, rows, dim), value), about]]


@pytest.mark.parametrize("save_video", [False, True])
def test_the_last_preview_is_the_last_decoded_frame(make, tokenizer, bar, save_video):
    found = make(save_video=save_video)
    kind, picture, _ = bar[-1][2]
    assert bar[-1][:2] == (8, 8) and picture.size == (48, 32)
    frames = frames_of(tokenizer.network, found.view(1), torch.device("cpu"))
    assert numpy.array_equal(numpy.asarray(picture), to_bytes(frames[-1]))
    bar.clear()
    make(save_video=save_video)  # all is there: nothing to show
    assert not any(args[2] for args in bar)


def test_a_prompt_for_a_teacher_without_prompts_names_its_socket():
    given = prompt(5, 1.0, dim=1024)
    for sockets, name in (((given, None), "positive"), ((None, given), "negative")):
        with pytest.raises(ValueError, match=f"^{name}: the mini teacher was trained without prompts; disc"):
            text_of(*sockets, TEACHER_PRESETS["mini"])
    with pytest.raises(ValueError, match=r"^negative: text embedding: expected \[1 L 1024\], got .*oldt5"):
        text_of(None, prompt(5, 1.0, dim=4096), TEACHER_PRESETS["gen3c"])


def test_an_estimator_that_finds_no_depth_names_its_socket():
    frame = torch.zeros(4, 6, 3)
    for found, said in (
        ({"points": frame}, "moge_model: this model finds points and no depth with its mask"),
        ({"mask": torch.zeros(1, 4, 6, dtype=torch.bool), "depth": torch.ones(1, 4, 6)}, "moge_model: .* sky alone"),
    ):
        model = SimpleNamespace(infer=lambda _, found=found: found)
        with pytest.raises(ValueError, match=said):
            depth_by(model, lambda: None, frame)


def test_prompts_are_padded_masked_and_stand_in_for_each_other(tiny_teacher):
    config = tiny_teacher.config
    zeros = zero_text(config)
    assert text_of(None, None, config) is None
    both = text_of(prompt(3, 1.0), prompt(7, 2.0, mask=2), config)
    assert both.prompt[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    assert both.negative[0, :, 0].tolist() == [2, 2, 0, 0, 0]
    alone = text_of(prompt(5, 1.0), None, config)
    assert torch.equal(alone.prompt, alone.negative) and alone.prompt.min() == 1
    without = text_of(None, prompt(5, 2.0), config)
    assert torch.equal(without.prompt, zeros.prompt) and without.negative.min() == 2
    with pytest.raises(ValueError, match="a conditioning of 2 prompts"):
        text_of(prompt(5, 1.0) * 2, None, config)
    with pytest.raises(ValueError, match=r"expected \[1 L 12\], got \(1, 5, 4096\); the teacher needs the old T5"):
        text_of([[torch.zeros(1, 5, 4096), {}]], None, config)


def test_a_prompt_reaches_the_teacher(make):
    with_prompt = make(name="a", positive=prompt(5, 1.0))
    assert not torch.equal(with_prompt.latents.values, make(name="b").latents.values)
