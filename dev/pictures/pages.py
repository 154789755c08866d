"""Pictures of what is written and said: reports, folders, a training."""

import tempfile
from dataclasses import replace
from pathlib import Path

from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.check.everything import check_all
from lyra_pack.comfyui_lyra.check.models import Models
from lyra_pack.comfyui_lyra.files.cameras.load import save_cameras
from lyra_pack.comfyui_lyra.files.scenes.scene import load_scene, save_scene
from lyra_pack.comfyui_lyra.training.train_recon import ReconTraining, train_recon
from lyra_pack.comfyui_lyra.weights.shipped import MINI, shipped_model
from PIL import Image
from torch import Tensor

from .scenes import models
from .sheets import page

STEPS = 150  # of the training that is shown


def checked() -> Image.Image:
    """What the node Check says of the mini models."""
    found = models()
    report = check_all(
        found.teacher.device, Path(), whole_machine=False,
        models=Models(
            tokenizer=lambda: found.tokenizer, teacher=lambda: found.teacher, recon=lambda: found.static,
        ),
    )  # fmt: skip
    rows: list[list[str]] = [[report.verdict.replace("*", "")]]
    for section in report.sections:
        judged = [each for each in section.findings if each.works is not None]
        if judged:
            rows += [[], [section.title], ["", "what", "found", "wanted"]]
            rows += [["ok" if each.works else "FAILS", each.name, each.found, each.wanted] for each in judged]
    return page(rows, (12, 44, 300, 560), 860, "Lyra: check of the setup")


def tree(folder: Path) -> list[list[str]]:
    """Files below a folder, and their sizes."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [[file.relative_to(folder.parent).as_posix(), f"{file.stat().st_size / 1000:.1f} kB"] for file in files]


def saved_latents() -> Image.Image:
    """The folder that Save Latents writes."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "latents_00001_")
        save_scene(folder, "clip", load_scene(MINI / "latents", None, dynamic=False))
        rows = tree(folder)
    shown = [row for row in rows if row[0].split("/")[1] not in "1234"]
    place = next(i for i, row in enumerate(shown) if row[0].split("/")[1] == "5")
    return page([*shown[:place], ["… paths 1 to 4 likewise"], *shown[place:]], (12, 400), 520)


def saved_cameras() -> Image.Image:
    """The files of six paths in COLMAP's form, and the beginning of two."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "lyra_00001_")
        save_cameras(folder, six_paths(pinhole_camera(480, 272, 50.0), PathSettings(frames=17)), kind="colmap")
        rows = tree(folder)
        for name in ("cameras.txt", "images.txt"):
            lines = next(folder.rglob(name)).read_text(encoding="utf-8").splitlines()
            rows += [[], [name], *([line, ""] for line in [line for line in lines if line[:1] != "#"][:3])]
    return page(rows, (12, 500), 780)


def trained() -> Image.Image:
    """A training of the first stage on one scene: the teacher's frames above the splats', at three times."""
    sheets: list[Tensor] = []
    training = ReconTraining(scenes=1, moving_scenes=1, validation=1)
    with tempfile.TemporaryDirectory() as folder:
        train_recon(
            Path(folder, "run"), shipped_model("tokenizer"), shipped_model("teacher"), training=training,
            stages=[replace(training.stage("m1"), stop=STEPS)], on_picture=sheets.append,
        )  # fmt: skip
    pictures = [Image.fromarray((s * 255).round().byte().numpy()) for s in sheets[:3]]
    found = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)))
    for i, picture in enumerate(pictures):
        found.paste(picture, (0, i * picture.height))
    return found
