"""A MODEL as the teacher of Generate Latents: the same clips, LoRAs in the key, quantised files, a single copy."""

import copy
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("comfy_api")

import comfy.lora  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.sd  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.load import load_teacher, read_teacher  # noqa: E402
from lyra_pack.comfyui_lyra.mini import __path__ as mini_path  # noqa: E402
from lyra_pack.comfyui_lyra.released.convert import convert_weights  # noqa: E402
from lyra_pack.nodes.latents.generate import GenerateLatents  # noqa: E402
from lyra_pack.nodes.models.teacher import load, teacher_of  # noqa: E402
from lyra_pack.nodes.native.model import register  # noqa: E402
from lyra_pack.nodes.native.teacher import teacher_of_model  # noqa: E402


def with_lora(stage, strength: float, seed: int = 0, prefix: str = "diffusion_model."):
    """The model with a random LoRA of rank 4 on every query, under the names that trainers write."""
    generator, lora = torch.Generator().manual_seed(seed), {}
    for name, weight in stage.model.model.diffusion_model.state_dict().items():
        if name.endswith("to_q.0.weight"):
            layer = prefix + name.removesuffix(".weight")
            lora[f"{layer}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=generator)
            lora[f"{layer}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=generator) / 4
    model, _ = comfy.sd.load_lora_for_models(stage.model, None, lora, strength, 0)
    return model


def test_both_outputs_are_one_network_with_one_copy_of_its_weights(stage):
    teacher, model = load(stage.file.name, stage.file, torch.float32, "auto", False)
    assert teacher.patcher is model and teacher.network is model.model and teacher.file == stage.file.name


@pytest.mark.parametrize("settings", [{}, {"guidance": 0.0, "solver": "dpmpp_2m"}, {"step_cache": 0.1}])
def test_generate_makes_the_same_on_cores_network(stage, film, off, settings):
    teacher = teacher_of(stage.model)
    management.load_models_gpu([teacher.patcher])
    assert off(film(teacher.teacher, **settings), film(**settings)) < 2e-5
    assert teacher.teacher.identity == stage.teacher.identity  # so finished paths of either are taken over


def test_step_caching_leaves_out_blocks_and_keeps_the_branches_apart(stage, film, off):
    counts, last = [], stage.model.model.diffusion_model.blocks["block2"]
    handle = last.register_forward_hook(lambda *_: counts.append(1))
    made = film(teacher_of_model(stage.model), step_cache=0.3, paths=stage_paths(stage)[:1])
    handle.remove()
    assert 2 <= len(counts) < 24
    assert 0 < off(made, film(paths=stage_paths(stage)[:1])) < 0.5


def stage_paths(stage):
    from lyra_pack.comfyui_lyra.geometry.fit import fitted

    return fitted(stage.geometry, stage.paths, *stage.teacher.config.trained_size)[1]


def test_a_lora_counts_by_its_strength_in_ksampler_and_in_generate(stage, ksampler, film, off):
    base, paths = ksampler(), stage_paths(stage)[:1]
    assert torch.equal(ksampler(model=with_lora(stage, 0.0)), base)
    model = with_lora(stage, 1.0)
    found = ksampler(model=model)
    assert off(found, base) > 0.01
    management.load_models_gpu([model])
    assert off(film(teacher_of_model(model), paths=paths), found) < 1e-4
    assert torch.equal(ksampler(), base)  # gone again
    torch.testing.assert_close(film(paths=paths), film(teacher_of_model(stage.model), paths=paths), rtol=0, atol=1)


def test_equal_loras_have_one_name_and_others_another(stage):
    names = [teacher_of_model(model).identity for model in (
        stage.model, with_lora(stage, 1.0), with_lora(stage, 1.0), with_lora(stage, 0.5), with_lora(stage, 1.0, seed=1)
    )]  # fmt: skip
    assert names[1] == names[2] and len(set(names)) == 4
    other = stage.model.clone()
    other.set_model_optimized_attention(comfy.lora.logging.info)
    assert teacher_of_model(other).identity not in names


def test_weights_that_are_stored_in_another_precision_than_computed_in_have_a_name_of_their_own(stage):
    """On a CPU and on older cards ComfyUI computes in float32 with weights that were cast to bfloat16."""
    whole, half = (
        teacher_of(load(stage.file.name, stage.file, dtype, "auto", False)[1]).teacher
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert whole.identity == stage.teacher.identity
    assert half.dtype == torch.bfloat16 or half.identity == whole.identity.replace("-", "-bfloat16-")


def test_names_of_other_trainers_apply_and_diffusers_do_not(stage):
    assert len(with_lora(stage, 1.0).patches) == 6
    assert not with_lora(stage, 1.0, prefix="transformer.").patches


def test_the_node_takes_a_model_goes_on_after_a_stop_and_begins_anew_with_a_lora(stage, folders):
    blocks = []
    handle = stage.model.model.diffusion_model.blocks["block2"].register_forward_hook(lambda *_: blocks.append(1))
    widgets = {"seed": 1, "steps": 3, "guidance": 0.0, "solver": "euler", "speed": 0.0, "name": "scene",
               "resume": True, "save_video": False, "foreground_masking": True}  # fmt: skip
    GenerateLatents.hidden = SimpleNamespace(unique_id=None)

    def cancel(*_) -> None:
        if len(blocks) == 4:
            management.interrupt_current_processing(True)

    def make(model):
        blocks.clear()
        return GenerateLatents.execute(model, stage.tokenizer, stage.geometry, stage.paths, **widgets).args

    try:
        cut = stage.model.model.diffusion_model.blocks["block1"].register_forward_hook(cancel)
        with pytest.raises(management.InterruptProcessingException):
            make(stage.model)
        cut.remove()
        first, _ = make(stage.model)
        assert len(blocks) == 3  # the second path alone
        second, where = make(with_lora(stage, 1.0))
        assert len(blocks) == 6 and where == "lyra/scene_2"
        assert not torch.equal(first.latents.values, second.latents.values)
        make(with_lora(stage, 1.0))
        assert not blocks
    finally:
        handle.remove()


def test_another_model_is_refused_by_its_name(stage):
    with pytest.raises(ValueError, match="this MODEL is Linear, not GEN3C; connect Load Teacher's model"):
        teacher_of(SimpleNamespace(model=torch.nn.Linear(1, 1)))


@pytest.fixture(scope="module")
def mini():
    from pathlib import Path

    return Path(next(iter(mini_path))) / "mini_teacher.safetensors"


@pytest.mark.parametrize("quant", ["fp8", "int8"])
@torch.inference_mode()
def test_a_quantised_file_is_one_network_of_both_outputs_and_core_loads_it_alike(tmp_path, mini, quant):
    convert_weights(mini, file := tmp_path / "small.safetensors", quant=quant)
    register()
    teacher, model = load(file.name, file, torch.float32, "auto", False)
    assert teacher.patcher is model and teacher.config.family == "mini" and teacher.file == file.name
    whole = load_teacher(mini, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 81, 3, 12, 20, generator=generator), torch.zeros(1, 8, 8)
    management.load_models_gpu([model])
    exact = whole.network(x, torch.zeros(1), text)
    found = teacher.teacher.network(x, torch.zeros(1), text).float()
    assert 0 < (found - exact).norm() / exact.norm() < 0.1
    kinds = {type(w).__name__ for w in model.model.diffusion_model.blocks.parameters()}
    assert "QuantizedTensor" in kinds
    core = comfy.sd.load_diffusion_model(str(file))
    assert core.model.teacher_config == teacher.config
    assert teacher_of(core).teacher.identity == teacher.teacher.identity
    assert read_teacher(file).fingerprint in teacher.teacher.identity


def test_a_model_that_is_copied_whole_is_named_alike(stage):
    assert teacher_of_model(copy.copy(stage.model).clone()).identity == teacher_of_model(stage.model).identity
