import os
import shutil

import pytest
import torch

pytest.importorskip("comfy_api")

from lyra_pack.comfyui_lyra.recon.load import save_recon  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer  # noqa: E402
from lyra_pack.nodes.comfy import folders as places  # noqa: E402
from lyra_pack.nodes.comfy.shelf import DECODERS  # noqa: E402
from lyra_pack.nodes.models.load import LoadRecon, LoadTokenizer  # noqa: E402
from lyra_pack.nodes.models.teacher import LoadTeacher  # noqa: E402


def offered(node) -> list[str]:
    return next(i for i in node.define_schema().inputs if i.id == "file").options


def test_a_tokenizer_and_a_splat_decoder_load_from_the_models_folders(models, tiny_tokenizer, tiny_recon):
    save_tokenizer(tiny_tokenizer, models / "vae" / "tiny.safetensors", licence="Apache-2.0")
    save_recon(tiny_recon, models / "lyra" / "deep" / "tiny.safetensors")
    (tokenizer,) = LoadTokenizer.execute("tiny.safetensors", "auto").args
    (recon,) = LoadRecon.execute("deep/tiny.safetensors", "auto").args
    assert (tokenizer.config, recon.config) == (tiny_tokenizer.config, tiny_recon.config)
    assert (tokenizer.licence, tokenizer.file) == ("Apache-2.0", "tiny.safetensors")
    for model, source in ((tokenizer, tiny_tokenizer), (recon, tiny_recon)):
        weights = model.network.state_dict()
        assert all(torch.equal(weights[name], weight) for name, weight in source.state_dict().items())
        assert model.dtype == torch.float32  # auto, on a CPU
    assert tokenizer.network.identity == tiny_tokenizer.identity
    assert LoadRecon.execute("deep/tiny.safetensors", "bfloat16").args[0].dtype == torch.bfloat16


def test_the_packs_own_models_come_first_each_in_its_list(models, tiny_tokenizer, tiny_recon):
    save_tokenizer(tiny_tokenizer, places.MINI / "coder.safetensors")
    for name in ("a_dynamic", "static"):
        save_recon(tiny_recon, places.MINI / f"{name}.safetensors")
    (places.MINI / "notes.txt").touch()
    save_recon(tiny_recon, models / "lyra" / "a.safetensors")
    (models / "lyra" / "readme.md").touch()
    assert offered(LoadTokenizer) == ["mini/coder.safetensors"]
    assert offered(LoadRecon) == ["mini/static.safetensors", "mini/a_dynamic.safetensors", "a.safetensors"]
    (recon,) = LoadRecon.execute("mini/static.safetensors", "auto").args
    assert recon.config == tiny_recon.config


def test_without_any_file_the_list_says_where_they_go(models):
    for node, folder in ((LoadTokenizer, "vae"), (LoadRecon, "lyra")):
        (only,) = offered(node)
        assert only == f"put a model into models/{folder}"
        assert f"in models/{folder}; put one there" in node.validate_inputs(only)
        with pytest.raises(FileNotFoundError, match=f"no file 'put a model .* in models/{folder}; put one there"):
            node.execute(only, "auto")


def test_what_a_file_lacks_is_said(models, tiny_tokenizer, tiny_recon):
    torch.save(tiny_recon.state_dict(), models / "lyra" / "mine.pt")
    assert LoadRecon.validate_inputs("mine.pt") is True
    with pytest.raises(ValueError, match="mine.pt does not say which splat decoder it holds; name the file after one"):
        LoadRecon.execute("mine.pt", "auto")
    torch.save(tiny_tokenizer.autoencoder.state_dict(), models / "vae" / "model.pt")
    torch.save((torch.zeros(256), torch.ones(256)), models / "vae" / "mean_std.pt")
    assert offered(LoadTokenizer) == ["model.pt"]
    with pytest.raises(ValueError, match="model.pt does not fit AutoencoderKLCosmos"):
        LoadTokenizer.execute("model.pt", "auto")


def test_nvidias_torchscript_files_are_offered_though_comfyui_lists_none(models):
    for name in ("cosmos/encoder.jit", "cosmos/decoder.jit", "cosmos/mean_std.pt", "cosmos/image_mean_std.pt", "a.sft"):
        (models / "vae" / name).parent.mkdir(exist_ok=True)
        (models / "vae" / name).touch()
    assert offered(LoadTokenizer) == ["a.sft", "cosmos/decoder.jit", "cosmos/encoder.jit"]
    assert LoadTokenizer.validate_inputs("cosmos/encoder.jit") is True
    with pytest.raises(ValueError, match="encoder.jit is an empty file"):
        LoadTokenizer.execute("cosmos/encoder.jit", "auto")


def test_folders_of_a_users_yaml_are_searched_too(models, tmp_path, tiny_recon):
    import folder_paths

    folder_paths.add_model_folder_path("lyra", str(tmp_path / "elsewhere"))
    save_recon(tiny_recon, tmp_path / "elsewhere" / "far.safetensors")
    save_recon(tiny_recon, models / "lyra" / "near.safetensors")
    assert offered(LoadRecon) == ["far.safetensors", "near.safetensors"]
    assert DECODERS.path("far.safetensors").parent == tmp_path / "elsewhere"


def test_a_file_written_again_is_loaded_again(models, tiny_recon):
    save_recon(tiny_recon, models / "lyra" / "a.safetensors")
    before = LoadRecon.fingerprint_inputs("a.safetensors", "auto")
    assert before == LoadRecon.fingerprint_inputs("a.safetensors", "auto")
    save_recon(tiny_recon, models / "lyra" / "a.safetensors", licence="another")
    assert LoadRecon.fingerprint_inputs("a.safetensors", "auto") != before


def test_a_model_is_loaded_again_when_what_belongs_to_its_file_changes(models):
    shards = [f"deep-{number:05}-of-00002.safetensors" for number in (1, 2)]
    belonging = {
        "vae": (LoadTokenizer, ["encoder.jit", "decoder.jit", "mean_std.pt", "config.json"]),
        "lyra": (LoadRecon, shards),
        "diffusion_models": (LoadTeacher, shards),
    }
    for folder, (node, (chosen, *others)) in belonging.items():
        for name in (chosen, *others):
            (models / folder / name).touch()
        for name in others:
            before = node.fingerprint_inputs(chosen)
            assert before == node.fingerprint_inputs(chosen) != "missing"
            os.utime(models / folder / name, (1, 1))
            assert node.fingerprint_inputs(chosen) != before, name
        before = node.fingerprint_inputs(chosen)
        (models / folder / others[0]).unlink()
        assert node.fingerprint_inputs(chosen) != before


def test_a_trained_decoders_folder_may_be_deleted_while_comfyui_runs(models, tiny_recon):
    folder = places.decoder_folder("mine")
    save_recon(tiny_recon, folder / "mine.safetensors")
    assert offered(LoadRecon) == ["mine/mine.safetensors"]
    shutil.rmtree(places.output_folder() / "lyra")
    assert offered(LoadRecon) == ["put a model into models/lyra"]
