"""The main job with the models that come with the pack: a picture becomes a scene, a clip becomes a moving one."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels_glue.devices import by_device
from .callbacks import OnStep
from .cameras.drawing import draw_paths
from .cameras.path import CameraTrajectory
from .cameras.sets import end_to_end
from .files.media.contact_sheet import contact_sheet
from .files.media.images import save_image
from .files.media.video import save_video
from .files.scenes.sample import shipped_sample
from .files.splats.ply import save_ply
from .files.splats.sequence import MANIFEST, save_sequence
from .gen3c.load import Teacher, load_teacher
from .geometry.geometry import Geometry
from .pipeline import Scene, build_scene, refine
from .recon.load import load_recon
from .recon.model import Recon
from .refine.schedule import settings_for
from .splats.gaussians import Gaussians
from .splats.render import render
from .tokenizer.clips import decode
from .tokenizer.model import CosmosTokenizer, load_tokenizer
from .training.data.sdg_memory import SDG_SETTINGS
from .viewer.html import write_html
from .weights.shipped import shipped_model

SCALE = 2  # frames are shown so many times as large as the models make them
DRAWN = {"cpu": 1, "cuda": 2}  # splats are drawn so many times as large, and enlarged if that is less
EVERY = 2  # every so many frames of a straight path are drawn
FPS = 12.0  # of the videos
REFINING = {"cpu": 40.0, "cuda": 20.0}  # seconds for the splats of a scene, all its moments together

Progress = Callable[[str], OnStep]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Models:
    """The mini models, where they compute."""

    teacher: Teacher
    tokenizer: CosmosTokenizer
    static: Recon
    dynamic: Recon

    @classmethod
    def load(cls, device: torch.device) -> "Models":
        """The shipped files."""
        teacher = load_teacher(
            shipped_model("teacher"), dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
        )
        teacher.to(device)
        return cls(
            teacher=teacher,
            tokenizer=load_tokenizer(shipped_model("tokenizer")).float().to(device),
            static=load_recon(shipped_model("recon_static")).float().to(device),
            dynamic=load_recon(shipped_model("recon_dynamic")).float().to(device),
        )


def run(
    out: Path,
    device: torch.device,
    progress: Progress,
    say: Say,
    own: Geometry | None = None,
    refining: float | None = None,
) -> None:
    """The shipped picture and clip, each into a folder of its own below ``out``, or one's ``own`` instead.

    Each scene's splats are refined for ``refining`` seconds, by default as many as suit the device; 0 does not.
    """
    start = perf_counter()
    refining = by_device(REFINING, device) if refining is None else refining
    models = Models.load(device)
    say(f"Mini models loaded in {perf_counter() - start:.1f} s; they know procedural scenes only. Device: {device}.")
    if own is not None:
        make = picture_scene if len(own.frames) == 1 else clip_scene
        make(models, own, out, progress, say, refining)
        return
    picture_scene(models, shipped_sample("picture"), out / "picture", progress, say, refining)
    clip_scene(models, shipped_sample("clip"), out / "clip", progress, say, refining)
    say(f"Both in {perf_counter() - start:.0f} s.")


def picture_scene(models: Models, geometry: Geometry, out: Path, progress: Progress, say: Say, refining: float) -> None:
    """Splats of a picture, and what is seen along the six paths, beside the teacher's frames."""
    say("\nA picture becomes a scene: the teacher films it along six paths, the decoder makes splats of that.")
    start = perf_counter()
    scene = build_scene(
        models.teacher, models.tokenizer, models.static, geometry, settings=SDG_SETTINGS, progress=progress
    )
    scene = refined(models, scene, refining, progress, say)
    show_picture(models, scene, out, progress, say, perf_counter() - start)


def show_picture(models: Models, scene: Scene, out: Path, progress: Progress, say: Say, seconds: float) -> None:
    """Files of a picture's scene, which took so many seconds to make."""
    made, (splats,), wanted = perf_counter(), scene.splats.frames, teacher_frames(models, scene)
    parts = [path[shown(path)] for path in scene.cameras]
    seen = draw(splats, end_to_end(parts), progress("draw")).split([len(part) for part in parts])
    rows, clips = [], []
    for path, drawn, films in zip(scene.cameras, seen, wanted, strict=True):
        film = films[shown(path)]
        rows += [(f"{path.name}: splats", drawn), (f"{path.name}: teacher", film)]
        clips.append(to_and_fro(torch.cat((drawn, film), dim=2)))
    save_ply(out / "scene.ply", splats.to("cpu"))
    write_html(out / "scene.html", scene.splats, scene.cameras, fps=scene.cameras[0].fps, title="picture")
    save_video(out / "paths.mp4", torch.cat(clips), FPS)
    save_image(out / "contact_sheet.png", contact_sheet(rows))
    save_image(out / "camera_paths.png", draw_paths(scene.cameras, splats.means.cpu(), splats.colors.cpu()))
    say(f"Made in {seconds:.1f} s, drawn and written in {perf_counter() - made:.1f} s:")
    say(f"  {out / 'scene.html'}: the scene to walk in; open it in a browser")
    say(f"  {out / 'scene.ply'}: {len(splats)} splats, for any viewer of 3D Gaussian splats")
    say(f"  {out / 'paths.mp4'}: the six paths, splats on the left, the teacher's frames on the right")
    say(f"  {out / 'contact_sheet.png'}: the same as one picture")
    say(f"  {out / 'camera_paths.png'}: where the cameras went")


def clip_scene(models: Models, geometry: Geometry, out: Path, progress: Progress, say: Say, refining: float) -> None:
    """Splats of three moments of a clip, and what is seen around them, beside the teacher's frames."""
    say("\nA clip becomes a moving scene: the teacher films it along the paths too, and any moment can be decoded.")
    start, last = perf_counter(), len(geometry.frames) - 1
    times = (0, last // 2, last)
    scene = build_scene(
        models.teacher, models.tokenizer, models.dynamic, geometry,
        settings=SDG_SETTINGS, times=times, progress=progress,
    )  # fmt: skip
    scene = refined(models, scene, refining, progress, say)
    show_clip(models, scene, out, progress, say, perf_counter() - start)


def show_clip(models: Models, scene: Scene, out: Path, progress: Progress, say: Say, seconds: float) -> None:
    """Files of a clip's scene, which took so many seconds to make."""
    made, wanted, source = perf_counter(), teacher_frames(models, scene), enlarged(scene.geometry.frames)
    times, fps = scene.splats.times, scene.cameras[0].fps
    rows, around = [("the clip", source)], []
    for time, splats in zip(times, scene.splats.frames, strict=True):
        circle = scene.cameras[-1][shown(scene.cameras[-1])]
        now = [path[time : time + 1] for path in scene.cameras[: None if time else 1]]  # at first all are at one place
        ends = [] if time else [path[-1:] for path in scene.cameras]
        seen = draw(splats, end_to_end((circle, *now, *ends)), progress(f"draw frame {time}"))
        round_it, there, far = seen.split((len(circle), len(now), len(ends)))
        around.append(torch.cat((round_it, source[time].expand_as(round_it)), dim=2))
        films = wanted[: len(now), time]
        if time:
            rows.append((f"frame {time}: splats, from where the six paths are then", there))
            rows.append((f"frame {time}: teacher, the same views", films))
        else:
            rows.append((f"frame {time}: splats, and the teacher's frame", torch.cat((there, films))))
            rows.append((f"frame {time}: splats, from the ends of the six paths", far))
    if (out / "splats" / MANIFEST).is_file():  # of an earlier demo
        shutil.rmtree(out / "splats")
    save_sequence(out / "splats", scene.splats.to("cpu"), scene.cameras, fps=fps)
    write_html(out / "scene.html", scene.splats, scene.cameras, fps=fps, title="clip")
    save_video(out / "bullet_times.mp4", torch.cat(around), FPS)
    save_image(out / "contact_sheet.png", contact_sheet(rows))
    say(f"Made in {seconds:.1f} s, drawn and written in {perf_counter() - made:.1f} s:")
    say(f"  {out / 'scene.html'}: the moving scene to walk in; open it in a browser")
    say(f"  {out / 'splats'}: splats of frames {', '.join(map(str, times))} as numbered PLY files, and a manifest")
    say(f"  {out / 'bullet_times.mp4'}: around each of these moments, the clip's own frame on the right")
    say(f"  {out / 'contact_sheet.png'}: the moments from the six paths, beside the teacher's frames")


def refined(models: Models, scene: Scene, seconds: float, progress: Progress, say: Say) -> Scene:
    """The scene with its splats refined for so many seconds in all."""
    if not seconds:
        return scene
    splats, path = scene.splats, scene.cameras[0]
    found = refine(
        splats.frames, scene.cameras, scene.latents.to(models.teacher.device), models.tokenizer, scene.geometry,
        settings=settings_for(splats.frames[0].means.device, path.height * path.width, seconds=seconds),
        times=splats.times, on_step=progress("refine"),
    )  # fmt: skip
    say(f"Refined: {found.report()}")
    return replace(scene, splats=replace(splats, frames=found.splats))


def draw(splats: Gaussians, path: CameraTrajectory, on_step: OnStep) -> Tensor:
    """Splats along a path, SCALE times as large, [F, H, W, 3] in [0, 1] on the CPU."""
    device = splats.means.device
    times = by_device(DRAWN, device)
    larger = path.resized(times * path.height, times * path.width).to(device)
    return enlarged(render(splats, larger, store="cpu", on_step=on_step).rgb, SCALE // times)


def teacher_frames(models: Models, scene: Scene) -> Tensor:
    """What the teacher made along each path, enlarged, [V, F, H, W, 3] on the CPU."""
    latents = scene.latents.to(models.teacher.device)
    return torch.stack([enlarged(decode(models.tokenizer, latents, i).cpu()) for i in range(len(scene.cameras))])


def enlarged(frames: Tensor, times: int = SCALE) -> Tensor:
    """Frames [F, H, W, 3], so many times as large, in [0, 1]."""
    larger = functional.interpolate(frames.movedim(-1, 1), scale_factor=times, mode="bicubic")
    return larger.movedim(1, -1).clamp(0, 1)


def shown(path: CameraTrajectory) -> slice:
    """Which cameras of a path are drawn: one round of the two of a circle, every EVERYth of the others."""
    return slice(len(path) // 2 + 1) if path.name == "clockwise" else slice(None, None, EVERY)


def to_and_fro(clip: Tensor) -> Tensor:
    """A clip [F, ...] forwards and back."""
    return torch.cat((clip, clip[1:-1].flip(0)))
