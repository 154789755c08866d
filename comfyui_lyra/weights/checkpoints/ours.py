"""What this pack and its kin write, by content: files that say so, and folders by what lies in them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...files.reading import parse_json

JSON_FORMATS = {  # "format" of our JSON files -> kind, what it is
    "lyra-cameras": ("cameras", "camera paths of this pack"),
    "lyra-splat-sequence": ("sequence", "the manifest of a splat sequence"),
    "lyra-sdg": ("manifest", "the manifest of generated paths: what they were made from"),
}
CAMERAS = ("cameras.json", "transforms.json")


def told_of(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Kind and sentence of a safetensors file of ours that holds no weights; None for any other."""
    kind = about.get("format")
    try:
        if kind == "lyra-geometry":
            frames, height, width = tensors["depth"].shape
            what = "a picture" if frames == 1 else f"a clip of {frames} frames"
            return "geometry", (
                f"a geometry of this pack: {what} of {width}x{height} with depth and cameras, depth divided by "
                f"{float(about['scale']):.4g}"
            )
        if kind == "lyra-latents":
            views, channels, *size = tensors["values"].shape
            paths = ", ".join(str(path["name"]) for path in parse_json(about["about"])["paths"])
            return "latents", (
                f"latents of this pack: {views} views of {channels}x{'x'.join(map(str, size))} along the paths {paths}"
            )
    except (KeyError, ValueError, TypeError) as error:
        return str(kind).removeprefix("lyra-"), f"a damaged {kind} file of this pack: no {error}"
    return None


def folder_kind(path: Path) -> tuple[str, str] | None:
    """Kind and sentence of a folder that this pack, Lyra or ViPE wrote; None for any other, of weights say."""
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return "folder", "an empty folder"
    if "manifest.json" in names and json_format(path / "manifest.json") == "lyra-splat-sequence":
        return "sequence", f"a splat sequence of this pack: {counted(path, '*.ply', 'PLY file')}"
    if names & set(CAMERAS):
        return "cameras", f"a folder of cameras ({min(names & set(CAMERAS))})"
    if {"latent", "pose", "intrinsics"} <= names:
        return "view", f"one generated path in the reference's layout: {counted(path / 'pose', '*.npz', 'clip')}"
    if path.resolve().name == "latent" and names <= {file.name for file in latents_in(path)}:
        return "latents", f"the latents of one generated path: {counted(path, '*', 'file')}"
    if {"rgb", "pose"} <= names:
        return "clips", f"ViPE's result or one generated path: {counted(path / 'rgb', '*.mp4', 'clip')}"
    views = sorted((name for name in names if (path / name / "pose").is_dir()), key=lambda name: (len(name), name))
    if views:
        clips = counted(path / views[0] / "pose", "*.npz", "clip")
        return "generated", f"generated paths in the reference's layout: {len(views)} views of {clips}"
    if any(name.endswith(".safetensors") and not name.startswith("step-") for name in names):
        return None  # weights
    for pattern, kind, what in (
        ("step-*.json", "training", "checkpoint"),
        ("*.ply", "splats", "PLY file"),
        ("*_depth.npz", "sample", "sample with its depth"),
    ):
        if any(path.glob(pattern)):
            return kind, f"a folder with {counted(path, pattern, what)}"
    if path.suffix == ".lyra" and any(path.glob("*.json")):
        return "manifest", f"what generated paths were made from: {counted(path, '*.json', 'manifest')}"
    return None


def latents_in(folder: Path) -> list[Path]:
    """The latents of a generated path, one file a clip, or two of the same."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pkl"))


def counted(folder: Path, pattern: str, what: str) -> str:
    """How many files there are, and the name of the only one."""
    files = list(folder.glob(pattern))
    return f"{len(files)} {what}s" if len(files) != 1 else f"1 {what} ({files[0].name})"


def json_format(file: Path) -> str | None:
    """The format that a JSON file of ours names."""
    try:
        found = parse_json(file.read_bytes())
    except (ValueError, OSError):
        return None
    return found.get("format") if isinstance(found, dict) else None
