"""The reference's layout of generated data: ``<root>/<view>/{rgb,pose,intrinsics,latent}/<clip>.{mp4,npz,npz,pkl}``.

Views are folders "0", "1", ...; a clip has the same name in each. A single path may be written without the view level.
Of a moving source's twelve views, 6 to 11 are its paths over the clip played backwards, with latents of their own: they
teach the dynamic splat decoder, and are no part of the scene.
Ours (see ``sdg_writer``) has latents as safetensors too, which say more of themselves.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ...cameras.path import CameraTrajectory
from ...latents import MultiViewLatents, VideoLatents
from ..cameras.npz import load_cameras_npz, save_cameras_npz
from ..cameras.pinhole import by_number
from ..media.video import load_video
from .latents import load_latents, load_provenance
from .latents_pkl import load_latent_pkl
from .sdg_manifest import Manifest, lyra_folder

log = logging.getLogger("lyra")

FORWARD = 6  # paths of a scene of the reference's, after which the time-flipped ones come (its registry.py)
PIXELS = 8  # of a picture a latent pixel, each way


def find_views(root: Path | str) -> tuple[Path, ...]:
    """The folder of each view, in the order of their numbers; the root itself if it holds a single path."""
    root = Path(root)
    if (root / "pose").is_dir():
        return (root,)
    views = [folder for folder in root.glob("*") if (folder / "pose").is_dir()]
    if not views:
        raise FileNotFoundError(f"{root}: expected folders <view>/pose, <view>/intrinsics as the reference writes them")
    return tuple(sorted(views, key=lambda folder: by_number(folder.name)))


def find_clips(root: Path | str) -> tuple[str, ...]:
    """Names of the clips that the first view has cameras for."""
    return tuple(sorted((file.stem for file in (find_views(root)[0] / "pose").glob("*.npz")), key=by_number))


def load_sdg_cameras(
    root: Path | str, clip: str | None = None, size: tuple[int, int] | None = None
) -> tuple[CameraTrajectory, ...]:
    """The path of each forward view of a clip, named after its folder. Without a name, the folder must hold one clip.

    ``size`` is (height, width) of the pictures; without it and for the frame rate the rgb video is looked into.
    """
    clip = clip or only_clip(root)
    return tuple(read_view(view, clip, size) for view in forward_views(root, clip))


def forward_views(root: Path | str, clip: str) -> tuple[Path, ...]:
    """The folders of a clip's views without the time-flipped ones, of which the log tells.

    Our own files say which they are. Of the reference's, views 6 to 11 of twelve are, where they hold video or latents;
    folders with nothing but cameras are a path set of any length.
    """
    views = find_views(root)
    twins = [view for view in views if "flipped" in own_provenance(view, clip)]
    if [view.name for view in views] == [str(number) for number in range(2 * FORWARD)]:
        twins = twins or [view for view in views[FORWARD:] if is_generated(view, clip)]
    if not twins:
        return views
    rest = tuple(view for view in views if view not in twins)
    if not rest:
        raise ValueError(f"{root}: '{clip}' has time-flipped paths only; generate the forward ones too")
    taken, left = (", ".join(view.name for view in some) for some in (rest, twins))
    log.warning("%s: views %s of '%s' are taken; %s are its time-flipped twins, left out", root, taken, clip, left)
    return rest


def own_provenance(view: Path, clip: str) -> dict[str, str]:
    """What our latents file of a view says it was made from; nothing where there is none."""
    file = view / "latent" / f"{clip}.safetensors"
    return load_provenance(file) if file.is_file() else {}


def is_generated(view: Path, clip: str) -> bool:
    """Whether a view holds more than cameras, and no file of ours."""
    there = [(view / kind / f"{clip}.{suffix}").is_file() for kind, suffix in (("latent", "pkl"), ("rgb", "mp4"))]
    return any(there) and not (view / "latent" / f"{clip}.safetensors").is_file()


def only_clip(root: Path | str) -> str:
    """The name of the one clip there is."""
    clips = find_clips(root)
    if len(clips) != 1:
        some = f" ({', '.join(clips[:5])}{', ...' if clips[5:] else ''})" if clips else ""
        raise ValueError(f"{root}: expected one clip or the name of one, found {len(clips)}{some}")
    return clips[0]


def read_view(view: Path, clip: str, size: tuple[int, int] | None) -> CameraTrajectory:
    """The path of one view of a clip."""
    rgb, fps = view / "rgb" / f"{clip}.mp4", 24.0
    if rgb.is_file():
        first, fps = load_video(rgb, count=1)
        size = size or (first.shape[1], first.shape[2])
    if size is None:
        raise ValueError(f"{rgb}: no such file to take the picture size from; give the size")
    pose, intrinsics = (view / kind / f"{clip}.npz" for kind in ("pose", "intrinsics"))
    return load_cameras_npz(pose, intrinsics, *size, fps=fps, name=view.name)


def save_sdg_cameras(root: Path | str, clip: str, paths: Sequence[CameraTrajectory]) -> None:
    """Write a path set: view 0, 1, ... in its order."""
    for view, cameras in enumerate(paths):
        folder = Path(root) / str(view)
        save_cameras_npz(folder / "pose" / f"{clip}.npz", folder / "intrinsics" / f"{clip}.npz", cameras)


def load_sdg(
    root: Path | str, clip: str | None = None, *, family: str = "lyra", dynamic: bool = False
) -> MultiViewLatents:
    """Latents and cameras of a clip, all views but the time-flipped ones, whose latents run backwards.

    Our own files say of which family they are and whether the source moved; for the reference's, the arguments do.
    """
    clip = clip or only_clip(root)
    check_finished(Path(root), clip)
    scenes = [load_view(view, clip, family, dynamic) for view in forward_views(root, clip)]
    first = scenes[0]
    for what in (lambda scene: tuple(scene.latents.values.shape[1:]), lambda scene: scene.family):
        if len(found := {what(scene) for scene in scenes}) > 1:
            raise ValueError(f"{root}: latents of '{clip}' differ between views: {sorted(found)[:3]}")
    values = torch.cat([scene.latents.values for scene in scenes])
    cameras = tuple(path for scene in scenes for path in scene.cameras)
    return replace(first, latents=replace(first.latents, values=values), cameras=cameras)


def check_finished(root: Path, clip: str) -> None:
    """Raise ValueError for a clip of ours of which not all paths are there yet."""
    file = lyra_folder(root) / f"{clip}.json"
    if file.is_file():
        wanted = len(Manifest.read(file).keys)
        there = sum((root / str(view) / "latent" / f"{clip}.safetensors").is_file() for view in range(wanted))
        if there < wanted:
            raise ValueError(
                f"{root}: {there} of the {wanted} paths of '{clip}' are finished; generate it once more with the same "
                "inputs to make the rest"
            )


def load_view(view: Path, clip: str, family: str, dynamic: bool) -> MultiViewLatents:
    """One view of a clip."""
    ours = view / "latent" / f"{clip}.safetensors"
    if ours.is_file():
        return load_latents(ours)
    values = load_latent_pkl(view / "latent" / f"{clip}.pkl")
    return MultiViewLatents(
        latents=VideoLatents(values=values[None]),
        cameras=(read_view(view, clip, (PIXELS * values.shape[2], PIXELS * values.shape[3])),),
        family=family,
        dynamic=dynamic,
        provenance={"source": "sdg", "clip": clip},
    )
