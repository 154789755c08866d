"""The latents of a scene on disk: our file, or a folder in the reference's layout."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...latents import MultiViewLatents
from ...weights.load import fingerprint
from .latents import load_latents
from .sdg import load_sdg
from .sdg_writer import PathStore


def load_scene(path: Path | str, clip: str | None = None, *, dynamic: bool = False) -> MultiViewLatents:
    """Latents and cameras of a .safetensors file of ours or of a clip in a folder (see ``load_sdg``).

    ``dynamic`` says of the reference's files that the source moved, which they do not know; ours do.
    """
    path = Path(path)
    return load_latents(path) if path.suffix.lower() == ".safetensors" else load_sdg(path, clip, dynamic=dynamic)


def save_scene(root: Path | str, clip: str, scene: MultiViewLatents, *, reference_format: bool = False) -> None:
    """Write a folder in the reference's layout (see ``sdg_writer``), without videos.

    With ``reference_format`` the latents are there also in the reference's own form, which Lyra's programs read.
    """
    if reference_format and scene.latents.space != "diffusion":
        raise ValueError("the reference's files hold latents in diffusion space; these are in tokenizer space")
    values = scene.latents.values
    store = PathStore(root, clip, rgb=False, reference_format=reference_format)
    store.begin(scene.provenance | {"latents": fingerprint({"values": values})}, scene.cameras, values[0].numel())
    for view, path in enumerate(scene.cameras):
        one = replace(scene, latents=replace(scene.latents, values=values[view : view + 1]), cameras=(path,))
        store.save(view, one, frames=no_video)


def no_video() -> Tensor:
    """Never asked for: a store without videos."""
    raise AssertionError("a store without videos asked for frames")
