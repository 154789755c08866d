"""Pictures that the library draws, without ComfyUI."""

import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from lyra_pack.comfyui_lyra import demo
from lyra_pack.comfyui_lyra.callbacks import no_progress
from lyra_pack.comfyui_lyra.cameras.drawing import draw_paths
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths, move, six_paths, still
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.gen3c.preview import preview_cache
from lyra_pack.comfyui_lyra.geometry.geometry import point_cloud
from lyra_pack.comfyui_lyra.quality.compare import compare_frames
from lyra_pack.comfyui_lyra.sources.geometry import from_depth
from lyra_pack.comfyui_lyra.splats.crop import crop
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene
from lyra_pack.comfyui_lyra.splats.render import depth_view, render
from lyra_pack.comfyui_lyra.tokenizer.clips import decode_clip, encode_clip
from PIL import Image
from torch import Tensor

from . import cards
from .pages import checked, saved_cameras, saved_latents, trained
from .scenes import MOMENTS, decoded, depth_picture, drawn, ends, models, scene, teacher_frames
from .sheets import LARGE, README_WIDTH, Cell, every_eighth, in_threes, narrowed, sheet, whole


def around_the_points() -> Image.Image:
    """The six paths with the picture's points, from above and from the side."""
    geometry = shipped_sample("picture")
    return whole(draw_paths(six_paths(geometry.cameras, PathSettings(frames=17)), *point_cloud(geometry), 800, 400))


def around_the_picture() -> Image.Image:
    """The six paths with the picture's splats."""
    made = scene("picture")
    splats = made.splats.frames[0]
    return whole(draw_paths(made.cameras, splats.means.cpu(), splats.colors.cpu(), 800, 400))


def cropped() -> Image.Image:
    """The demo scene, and its ring."""
    whole_scene, camera = demo_scene(), pinhole_camera(480, 288, 45.0)
    part = crop(whole_scene, center=(0.28, 0.07, 1.05), max_distance=0.4)
    labels = f"the demo scene, {len(whole_scene)} splats", f"within 0.4 units of the ring, {len(part)} splats"
    return sheet([(label, render(s, camera).rgb[0]) for label, s in zip(labels, (whole_scene, part), strict=True)])


def rendered() -> Image.Image:
    """Colours, depth and alpha of the demo scene."""
    frames = render(demo_scene(), pinhole_camera(480, 288, 45.0))
    alpha = frames.alpha[0, ..., None].expand(-1, -1, 3)
    return sheet([("frames", frames.rgb[0]), ("depth view", depth_view(frames.depth)[0]), ("alpha", alpha)])


def sample_scene() -> Image.Image:
    """The shipped picture and clip with their depth."""
    still, clip = shipped_sample("picture"), shipped_sample("clip")
    far = depth_view(clip.depth)
    return sheet(
        [("picture", still.frames[0]), ("clip, frame 0", clip.frames[0]), ("clip, frame 16", clip.frames[16])],
        [("its depth", depth_view(still.depth)[0]), ("its depth", far[0]), ("its depth", far[16])],
    )


def six_ends(of_splats: bool) -> Image.Image:
    """The ends of the paths: the splats', or the teacher's."""
    made = decoded("picture")
    splats = made.splats.frames[0]
    return in_threes([
        (name, drawn(splats, made.cameras[v][f : f + 1])[0] if of_splats else teacher_frames("picture", v)[f])
        for name, v, f in ends("picture")
    ])  # fmt: skip


def frames_of_a_path() -> Image.Image:
    """Frames of the path to the right."""
    return in_threes([(f"frame {i}", teacher_frames("picture", 1)[i]) for i in (0, 3, 6, 10, 13, 16)])


def latents() -> Image.Image:
    """Frames 0, 11 and 16 of all six paths."""
    names = [path.name for path in decoded("picture").cameras]
    first = [(f"path {i}: {name}", teacher_frames("picture", i)[0]) for i, name in enumerate(names)]
    return sheet(first, *([(f"frame {f}", teacher_frames("picture", i)[f]) for i in range(6)] for f in (11, 16)))


def evaluated() -> Image.Image:
    """The best and the worst frame of the splats, beside the error."""
    made, wanted, found = decoded("picture"), [], []
    for view, path in enumerate(made.cameras):
        wanted.append(teacher_frames("picture", view)[::8])
        found.append(drawn(made.splats.frames[0], path[::8], 1))
    truth, seen = torch.cat(wanted), torch.cat(found)
    result = compare_frames(seen, truth)
    scores, error = result.scores["psnr"], result.picture(4)
    rows = [("best", int(scores.argmax())), ("worst", result.worst)]
    return sheet(*(
        [(f"{name}: the teacher's frame", truth[i]), (f"the splats, {scores[i]:.1f} dB", seen[i]),
         ("error, four times as bright", error[i])]
        for name, i in rows
    ))  # fmt: skip


def shown_to_the_teacher() -> Image.Image:
    """Points of the picture at the ends of paths, and the frames made of them."""
    made = decoded("picture")
    above, below = [], []
    for view in (1, 2, 3):
        above.append((f"{made.cameras[view].name}: points of the picture", cache_frames(view)[-1]))
        below.append(("what the teacher makes of it", teacher_frames("picture", view)[-1]))
    return sheet(above, below)


@cache
def cache_frames(view: int) -> Tensor:
    """What the teacher is shown along a path of the picture: frames 0, 8 and 16."""
    geometry = shipped_sample("picture")
    paths = six_paths(geometry.cameras[:1], PathSettings(frames=17))
    return preview_cache(geometry, paths[view], every=8)[0]


def previewed() -> Image.Image:
    """The points along two paths."""
    rows = ((0, "left"), (3, "zoom_out"))
    return sheet(*([(f"{name}, frame {f}", cache_frames(v)[f // 8]) for f in (0, 8, 16)] for v, name in rows))


def there_and_back() -> Image.Image:
    """A clip through the tokenizer."""
    clip, tokenizer = shipped_sample("clip").frames, models().tokenizer
    video = (clip.permute(3, 0, 1, 2)[None] * 2 - 1).to(models().teacher.device)
    back = (decode_clip(tokenizer, encode_clip(tokenizer, video)[0]).permute(1, 2, 3, 0) + 1) / 2
    return sheet(every_eighth("frame {}", clip), every_eighth("through the tokenizer and back", back))


def clip_with_depth() -> Image.Image:
    """A clip, its depth and its points."""
    clip = shipped_sample("clip")
    path = camera_paths(clip.cameras, PathSettings("right", 17))[0]
    points = preview_cache(clip, path)[0][::8]
    return sheet(
        every_eighth("frame {}", clip.frames),
        every_eighth("its depth", depth_view(clip.depth)),
        [("its points, from a path to the right", picture) for picture in points],
    )


def decoders() -> Image.Image:
    """What the static and the dynamic decoder make."""
    rows = []
    for kind, name, label in (("picture", "static", "the splats, from there"), ("clip", "dynamic", "that moment")):
        made = decoded(kind)
        splats, camera = made.splats.frames[0], made.cameras[0][:1]
        far = drawn(splats, moved_back(camera))[0]
        rows.append([
            (f"{name}: a frame of the teacher", teacher_frames(kind, 0)[0]),
            (label, drawn(splats, camera)[0]), ("from farther back than any path", far),
        ])  # fmt: skip
    return sheet(*rows)


def moved_back(camera: CameraTrajectory, units: float = 0.5) -> CameraTrajectory:
    """A camera set back along its view."""
    return move(still(camera, 2), "zoom_out", units)[-1:]


def moments() -> Image.Image:
    """The scenes of three bullet times."""
    made, clip = scene("clip"), shipped_sample("clip").frames
    camera = moved_back(made.cameras[0][:1])
    seen = [(f"index {i}", drawn(splats, camera)[0]) for i, splats in enumerate(made.splats.frames)]
    return sheet(every_eighth("the clip, frame {}", clip), seen)


def sequence() -> Image.Image:
    """The same moments from two places."""
    made = scene("clip")
    places = [("{:05}.ply: frame {}", made.cameras[0][:1]), ("the same file, from the right", made.cameras[1][-1:])]
    moments = list(enumerate(zip(made.splats.times, made.splats.frames, strict=True)))
    return sheet(*([(label.format(i, t), drawn(s, place)[0]) for i, (t, s) in moments] for label, place in places))


def from_depth_pictures() -> Image.Image:
    """Points of a depth picture under right and wrong numbers."""
    sample = shipped_sample("picture")
    near, far = 1.0, 13.0
    grey = depth_picture(near, far)
    tries = [("near 1, far 13, fov 41: right", near, far, 41.0), ("far 1.5: too flat", near, 1.5, 41.0),
             ("far 200: too deep", near, 200.0, 41.0), ("fov 100: leans", near, far, 100.0)]  # fmt: skip
    cells = [("picture", sample.frames[0]), ("depth, near-far", grey[0, ..., None].expand(-1, -1, 3))]
    for label, low, high, fov in tries:
        geometry = from_depth(sample.frames, grey, "near-far", near=low, far=high, fov=fov)
        path = camera_paths(geometry.cameras, PathSettings("right", 17))[0]
        cells.append((label, preview_cache(geometry, path, every=16)[0][-1]))
    return in_threes(cells)


def demo_sheet(kind: str) -> Image.Image:
    """The contact sheet of ``lyra demo`` at the README's width; of a picture the first three of the six paths."""
    show = demo.show_clip if kind == "clip" else demo.show_picture
    with tempfile.TemporaryDirectory() as folder:
        show(models(), scene(kind), Path(folder), lambda label: no_progress, lambda line: None, 0.0)
        found = Image.open(Path(folder, "contact_sheet.png")).convert("RGB")
    return narrowed(found if kind == "clip" else found.crop((0, 0, found.width, found.height // 2)), README_WIDTH)


def stages(kind: str, view: int, frame: int, moment: int = 0) -> list[Cell]:
    """One place of a path: the splats as decoded, the same refined, and the teacher's frame."""
    camera = decoded(kind).cameras[view][frame : frame + 1]
    before, after = (drawn(made.splats.frames[moment], camera)[0] for made in (decoded(kind), scene(kind)))
    return [("as decoded", before), ("refined", after), ("the teacher's frame", teacher_frames(kind, view)[frame])]


def refined_picture() -> Image.Image:
    """The picture itself, and the far ends of two paths: decoded, refined, wanted."""
    first = [*stages("picture", 0, 0)[:2], ("the picture", shipped_sample("picture").frames[0])]
    return sheet(first, stages("picture", 1, 16), stages("picture", 4, 16), size=LARGE)


def refined_clip() -> Image.Image:
    """Three moments of the clip: decoded, refined, wanted."""
    return sheet(*(stages("clip", 1, frame, i) for i, frame in enumerate(MOMENTS)), size=LARGE)


def refined_rows() -> Image.Image:
    """The same of the picture in rows."""
    places = [stages("picture", view, 16) for view in (0, 1, 4)]
    return sheet(*(list(row) for row in zip(*places, strict=True)))


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "demo": partial(demo_sheet, "picture"),
    "demo_clip": partial(demo_sheet, "clip"),
    "refine": refined_picture,
    "refine_clip": refined_clip,
    "LyraCameraPaths": around_the_points,
    "LyraCheck": checked,
    "LyraCropSplats": cropped,
    "LyraDecodeLatents": frames_of_a_path,
    "LyraEvaluate": evaluated,
    "LyraGenerateLatents": partial(six_ends, False),
    "LyraGeometryFromDepth": from_depth_pictures,
    "LyraLoadLatents": latents,
    "LyraLoadRecon": decoders,
    "LyraLoadTeacher": shown_to_the_teacher,
    "LyraLoadTokenizer": there_and_back,
    "LyraLoadViPE": clip_with_depth,
    "LyraPreviewCache": previewed,
    "LyraPreviewCameras": around_the_picture,
    "LyraReconstruct": partial(six_ends, True),
    "LyraRefineSplats": refined_rows,
    "LyraRenderSplats": rendered,
    "LyraSampleScene": sample_scene,
    "LyraSaveCameraPaths": saved_cameras,
    "LyraSaveLatents": saved_latents,
    "LyraSaveSplatSequence": sequence,
    "LyraSelectTime": moments,
    "LyraTrainRecon": trained,
    **cards.DRAWN,
}
