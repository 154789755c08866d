import hashlib
import shutil

import pytest
import torch
from lyra_pack.comfyui_lyra.check import files as module
from lyra_pack.comfyui_lyra.check.files import file_checks, known_md5
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import load_latents
from lyra_pack.comfyui_lyra.files.scenes.latents_pkl import save_latent_pkl
from lyra_pack.comfyui_lyra.files.splats.ply import save_ply
from lyra_pack.comfyui_lyra.gen3c.load import save_teacher
from lyra_pack.comfyui_lyra.recon.load import save_recon
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.tokenizer.model import CosmosTokenizer, save_tokenizer
from lyra_pack.comfyui_lyra.weights.load import save_weights
from lyra_pack.comfyui_lyra.weights.shipped import MINI


@pytest.fixture
def weights(tmp_path, small_teacher, small_tokenizer, small_recon):
    """One file of each kind."""
    save_teacher(small_teacher, tmp_path / "teacher.safetensors")
    save_tokenizer(small_tokenizer, tmp_path / "tokenizer.safetensors")
    save_recon(small_recon, tmp_path / "recon.safetensors")
    return tmp_path


def by_name(section) -> dict:
    return {finding.name: finding for finding in section.findings}


@pytest.mark.parametrize("kind", ["teacher", "tokenizer", "recon"])
def test_whole_weights_work_and_name_their_loader(weights, kind):
    found = by_name(file_checks(weights / f"{kind}.safetensors"))
    assert found["loader"].found == kind and found["loader"].works
    assert found["names, shapes, numbers"].works and "tensors fit" in found["names, shapes, numbers"].found
    assert "float32" in found["numbers"].found


@pytest.mark.parametrize("kind", ["teacher", "tokenizer", "recon"])
def test_a_file_that_ends_early_fails(weights, kind):
    file = weights / f"{kind}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    found = by_name(file_checks(file))
    assert found["what it is"].works is False and "broke off" in found["what it is"].found


def rewritten(model, config, file, change) -> None:
    """A file of a model's weights with something changed."""
    state = dict(model.state_dict())
    change(state)
    save_weights(file, state, config)


def test_a_missing_tensor_a_wrong_shape_and_values_that_are_no_numbers_fail(weights, small_teacher, small_recon):
    def drop(state):
        del state["transformer_blocks.1.attn2.to_k.weight"]

    def cut(state):
        state["enc_norm.bias"] = state["enc_norm.bias"][:5]

    def poison(name):
        return lambda state: state.update({name: torch.full_like(state[name], torch.nan)})

    cases = (
        (small_teacher.network, small_teacher.config, drop, "1 missing"),
        (small_teacher.network, small_teacher.config, poison("proj_out.weight"), "proj_out.weight holds values"),
        (small_recon, small_recon.config, cut, "enc_norm.bias is (5,), expected (32,)"),
        (small_recon, small_recon.config, poison("deconv.bias"), "deconv.bias holds values that are not finite"),
    )
    for model, config, change, said in cases:
        rewritten(model, config, weights / "changed.safetensors", change)
        finding = by_name(file_checks(weights / "changed.safetensors"))["names, shapes, numbers"]
        assert finding.works is False and said in finding.found


def test_exchanged_statistics_are_told_by_deviations_below_zero(weights, small_tokenizer):
    swapped = CosmosTokenizer(
        small_tokenizer.config, small_tokenizer.autoencoder, small_tokenizer.std, small_tokenizer.mean
    )
    save_tokenizer(swapped, weights / "swapped.safetensors")
    finding = by_name(file_checks(weights / "swapped.safetensors"))["names, shapes, numbers"]
    assert finding.works is False and "may be exchanged" in finding.found


def test_what_is_no_weights_fails_with_what_it_is(tmp_path):
    (tmp_path / "page.safetensors").write_text("<!doctype html><html>log in</html>")
    found = by_name(file_checks(tmp_path / "page.safetensors"))
    assert found["loader"].works is False and "web page" in found["what it is"].found
    (tmp_path / "words.safetensors").write_text("a key is needed")  # text, and called weights
    assert by_name(file_checks(tmp_path / "words.safetensors"))["loader"].works is False


def test_a_released_name_is_checked_by_its_hash_once(weights, monkeypatch):
    file = weights / "recon.safetensors"
    right = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "known_md5", lambda name: right)
    assert by_name(file_checks(file))["hash (md5)"].works
    monkeypatch.setattr(module, "hashes", None)  # remembered: not taken again
    assert by_name(file_checks(file))["hash (md5)"].works
    monkeypatch.setattr(module, "known_md5", lambda name: "0" * 32)
    assert by_name(file_checks(file))["hash (md5)"].works is False


def test_hashes_are_known_by_our_names_and_by_theirs_where_those_are_unique():
    assert known_md5("lyra_static.pt") == "28ddd05011b33350c70edab02c23c602"
    assert known_md5("mean_std.pt") == "f07680ad7eefae57d698778e2a0c7c96"
    assert known_md5("something.pt") is None


def test_files_that_are_no_models_are_read_by_what_reads_their_kind(tmp_path, picture):
    torch.save((torch.zeros(256), torch.ones(256)), tmp_path / "stats.pt")
    save_geometry(tmp_path / "geometry.safetensors", picture)
    save_ply(tmp_path / "splats.ply", demo_scene()[::500])
    for name in ("stats.pt", "geometry.safetensors", "splats.ply"):
        assert by_name(file_checks(tmp_path / name))["reads"].works, name
    torch.save((torch.zeros(250), torch.ones(250)), tmp_path / "stats.pt")
    (tmp_path / "splats.ply").write_bytes((tmp_path / "splats.ply").read_bytes()[:-40])
    for name in ("stats.pt", "splats.ply"):
        assert by_name(file_checks(tmp_path / name))["reads"].works is False, name


def test_latents_of_the_pack_are_read_file_folder_and_cameras_alone(tmp_path):
    folder = tmp_path / "latents"
    shutil.copytree(MINI / "latents", folder)
    one = folder / "3" / "latent" / "picture.safetensors"
    latents = load_latents(one).latents.values[0]
    save_latent_pkl(tmp_path / "one.pkl", latents)
    for path in (folder, one, one.parent, one.parents[1], tmp_path / "one.pkl"):
        assert by_name(file_checks(path))["reads"].works, path
    one.write_bytes(one.read_bytes()[:-9])
    for path in (folder, one, one.parent, one.parents[1]):
        assert any(finding.works is False for finding in file_checks(path).findings), path
    for view in folder.glob("[0-9]"):
        shutil.rmtree(view / "latent")
    assert by_name(file_checks(folder))["reads"].works


def test_known_files_that_nothing_reads_are_told_and_neither_work_nor_fail(tmp_path):
    texts = {"note.txt": "a word", "log.jsonl": '{"step": 1}\n{"step": 2}\n', "about.json": '{"a": 1}'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    others = (MINI / "picture_depth.npz", MINI / "clip.mp4", MINI / "picture.png")
    for path in (*others, *(tmp_path / name for name in texts)):
        assert by_name(file_checks(path))["content"].found == "not weights, not looked into"
        assert {finding.works for finding in file_checks(path).findings} == {None}, path
