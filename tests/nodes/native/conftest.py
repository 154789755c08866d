"""A small GEN3C with lively random weights as both outputs of Load Teacher, and a scene for it."""

import copy
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


@dataclass
class Stage:
    """What the tests of core's samplers share."""

    teacher: object  # Teacher, the library's network
    model: object  # ModelPatcher
    tokenizer: object  # Model
    geometry: object
    paths: tuple
    file: Path


@pytest.fixture(scope="session")
def stage(tiny_tokenizer, tmp_path_factory) -> Stage:
    from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
    from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
    from lyra_pack.comfyui_lyra.configs import TeacherConfig
    from lyra_pack.comfyui_lyra.gen3c.load import Teacher, load_teacher, save_teacher
    from lyra_pack.comfyui_lyra.sources.geometry import from_depth
    from lyra_pack.nodes.comfy.patchers import Model, in_core
    from lyra_pack.nodes.models.teacher import load

    config = TeacherConfig(
        family="tiny", trained_size=(32, 48), trained_frames=9, heads=4, head_dim=16, blocks=3, adaln_rank=8,
        text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False,
    )  # fmt: skip
    network = random_teacher(config, torch.device("cpu")).float()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
            else:
                weight.fill_(1)
        network.patch_embed.proj.weight[:, 17 * 4 : 81 * 4] *= 60  # this tokenizer's latents are small, and much alike
    file = tmp_path_factory.mktemp("teacher") / "lively.safetensors"
    save_teacher(Teacher(network=network, config=config, fingerprint="-", dtype=torch.float32), file)
    model = load("lively.safetensors", file, torch.float32, "auto", False)[1]
    depth = torch.full((1, 80, 96), 6.0)
    depth[:, 20:60, 30:60] = 3
    frames = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(0))
    geometry = from_depth(frames, depth, fov=50)
    tokenizer = Model(patcher=in_core(copy.deepcopy(tiny_tokenizer)), config=tiny_tokenizer.config, file="tiny")
    return Stage(
        load_teacher(file, dtype=torch.float32),
        model,
        tokenizer,
        geometry,
        camera_paths(geometry.cameras, PathSettings("six_paths", 9))[:2],
        file,
    )


@pytest.fixture(scope="session")
def conditions(stage):
    """Positive, negative and latent of both paths, and the paths at the teacher's size."""
    from lyra_pack.nodes.native.conditioning import GEN3CConditioning

    with torch.inference_mode():
        return GEN3CConditioning.execute(stage.model, stage.tokenizer, stage.geometry, stage.paths, True).args


@pytest.fixture(scope="session")
def film(stage):
    """Latents [paths, 16, T, h, w] that Generate Latents' library makes of the scene."""
    from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, generate
    from lyra_pack.comfyui_lyra.geometry.fit import fitted

    geometry, paths = fitted(stage.geometry, stage.paths, *stage.teacher.config.trained_size)

    def make(teacher=None, paths=paths, **settings):
        return generate(
            teacher or stage.teacher, stage.tokenizer.network, geometry, paths,
            settings=replace(GenerateSettings(steps=12), **settings), device=torch.device("cpu"),
        ).latents.values  # fmt: skip

    return make


@pytest.fixture(scope="session")
def ksampler(stage, conditions):
    """Core's KSampler on the first path: what it returns for changed settings."""
    import comfy.sample

    positive, negative, latent, _ = conditions

    def run(model=None, steps=12, cfg=2.0, sampler="euler", scheduler="karras", path=0, seed=1, **changes):
        given = {"positive": positive[path], "negative": negative[path], "latent_image": latent[path]["samples"]}
        given |= {name: changes.pop(name) for name in tuple(changes) if name in given}
        batch_index = changes.pop("batch_index", None)
        noise = changes.pop("noise", None)
        if noise is None:
            noise = comfy.sample.prepare_noise(given["latent_image"], seed, batch_index)
        with torch.inference_mode():
            return comfy.sample.sample(
                model or stage.model, noise, steps, cfg, sampler, scheduler, seed=seed, disable_pbar=True,
                **given, **changes,
            )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def off():
    """Relative difference of two clips beyond latent frame 0, which is the picture."""

    def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
        return ((found - expected)[:, :, 1:].norm() / expected[:, :, 1:].norm()).item()

    return relative


@pytest.fixture(scope="session")
def core() -> Iterator[SimpleNamespace]:
    """ComfyUI's modules of nodes; its ``nodes``, which where a test runs in our root is ours."""
    import comfy.sd

    about = importlib.util.spec_from_file_location("nodes", Path(comfy.sd.__file__).parents[1] / "nodes.py")
    module, before = importlib.util.module_from_spec(about), sys.modules.get("nodes")
    sys.modules["nodes"] = module
    about.loader.exec_module(module)
    names = ("cosmos", "custom_sampler", "easycache", "model_advanced", "rebatch", "torch_compile")
    extras = {name: importlib.import_module(f"comfy_extras.nodes_{name}") for name in names}
    yield SimpleNamespace(nodes=module, **extras)
    del sys.modules["nodes"]
    if before is not None:
        sys.modules["nodes"] = before
