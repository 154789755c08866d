import re
import signal

import pytest
import torch
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.cli.refine import interruptible
from lyra_pack.comfyui_lyra.files.cameras.lyra_json import save_cameras_json
from lyra_pack.comfyui_lyra.files.scenes.geometry import save_geometry
from lyra_pack.comfyui_lyra.files.scenes.latents import save_latents
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply, save_ply
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.inputs import in_splat_world
from lyra_pack.comfyui_lyra.tokenizer.model import save_tokenizer

BRIEF = ["--steps", "6", "--dtype", "float32", "--device", "cpu", "--tokenizer", "tokenizer.safetensors"]


@pytest.fixture(params=[False, True], ids=["still", "moving"])
def folder(request, tmp_path, monkeypatch, two_moves, small_tokenizer, cloud, picture, clip):
    """What reconstruct leaves, with the latents and the geometry it came from; is it a moving scene?"""
    monkeypatch.chdir(tmp_path)
    values = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    latents = MultiViewLatents(
        latents=VideoLatents(values=values), cameras=two_moves, family="small", dynamic=request.param
    )
    save_latents("latents.safetensors", latents)
    save_ply("scene.ply", cloud)
    save_cameras_json("cameras.json", in_splat_world(two_moves))
    save_tokenizer(small_tokenizer, "tokenizer.safetensors")
    save_geometry("geometry.safetensors", clip if request.param else picture)
    return request.param


def test_refine_writes_sharper_splats_and_says_by_how_much(folder, capsys):
    time = ["--time", "4"] if folder else []
    words = ["refine", "scene.ply", "out.ply", "--latents", "latents.safetensors", *time, *BRIEF]
    assert main(words + ["--geometry", "geometry.safetensors"]) == 0, capsys.readouterr().err
    assert len(load_ply("out.ply")) == len(load_ply("scene.ply"))
    last = capsys.readouterr().out.splitlines()[-1]
    numbers = re.fullmatch(
        r"6 steps in .* s; PSNR before -> after: first picture (.*) -> (.*) dB, teacher's frames (.*) -> (.*) dB", last
    )
    first, second, third, fourth = map(float, numbers.groups())
    assert second > first and fourth > third
    assert main([*words, "--poses", "0.1", "--needles", "0.1"]) == 0
    assert "first picture -, teacher's frames" in capsys.readouterr().out.splitlines()[-1]


def test_what_is_missing_is_said(folder, capsys, tmp_path):
    words = ["refine", "scene.ply", "out.ply", "--latents", "latents.safetensors", *BRIEF]
    if folder:
        assert main(words) == 1
        assert "shows a moving scene; say which bullet time the splats are of with --time" in capsys.readouterr().err
    timed = [*words, "--time", "4"] if folder else words
    assert main([*timed, "--invented", "0.5"]) == 1
    assert "what the picture shows cannot weigh more without it; give its geometry too" in capsys.readouterr().err
    (tmp_path / "cameras.json").unlink()
    assert main(timed) == 1
    assert "cameras.json is not there; name the cameras that 'lyra reconstruct' wrote" in capsys.readouterr().err
    assert not (tmp_path / "out.ply").exists()


def test_the_first_interrupt_is_kept_and_the_second_ends_the_program():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as enough:
        assert not enough()
        signal.raise_signal(signal.SIGINT)
        assert enough()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
