"""Remakes the pictures of README, help pages and templates: ``python dev/make_pictures.py [NAME...]``.

Without names all that the library draws: ``demo`` and ``demo_clip`` of the README, and the help pages' pictures by the
ids of their nodes. ``--editor URL`` makes those of the editor too (templates, README), in a running ComfyUI that has
this pack; it needs node and what tests/comfyui/editor.mjs names. ``--list`` tells every picture and what makes it.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["lyra_pack"])

from lyra_pack.comfyui_lyra import demo  # noqa: E402
from lyra_pack.comfyui_lyra.callbacks import no_progress  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.drawing import draw_paths  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths, move, six_paths, still  # noqa: E402
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera  # noqa: E402
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample  # noqa: E402
from lyra_pack.comfyui_lyra.gen3c.preview import preview_cache  # noqa: E402
from lyra_pack.comfyui_lyra.geometry.geometry import point_cloud  # noqa: E402
from lyra_pack.comfyui_lyra.pipeline import Scene, build_scene  # noqa: E402
from lyra_pack.comfyui_lyra.quality.compare import compare_frames  # noqa: E402
from lyra_pack.comfyui_lyra.sources.geometry import from_depth  # noqa: E402
from lyra_pack.comfyui_lyra.splats.crop import crop  # noqa: E402
from lyra_pack.comfyui_lyra.splats.demo_scene import demo_scene  # noqa: E402
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians  # noqa: E402
from lyra_pack.comfyui_lyra.splats.render import depth_view, render  # noqa: E402
from lyra_pack.comfyui_lyra.tokenizer.clips import decode, decode_clip, encode_clip  # noqa: E402
from lyra_pack.comfyui_lyra.training.data.sdg_memory import SDG_SETTINGS  # noqa: E402

HELP, ASSETS, TEMPLATES = ROOT / "nodes" / "web" / "pictures", ROOT / "assets", ROOT / "workflows"
README_WIDTH, TEMPLATE_WIDTH, CELL = 1100, 400, (242, 145)  # pixels
MARGIN, LABEL = 6, 20
PAPER, INK = (24, 26, 30), (225, 228, 232)
ROOM = {HELP: 40_000, ASSETS: 125_000, TEMPLATES: 20_000}  # bytes that a picture may take
Cell = tuple[str, Tensor]  # label, picture [H, W, 3] in [0, 1]


def labelled(label: str, picture: Tensor, size: tuple[int, int] = CELL) -> Image.Image:
    """A picture of one size below its label."""
    pixels = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())
    cell = Image.new("RGB", (size[0], size[1] + LABEL), PAPER)
    ImageDraw.Draw(cell).text((3, 3), label, fill=INK, font=ImageFont.load_default(size=12))
    cell.paste(pixels.resize(size, Image.Resampling.BICUBIC), (0, LABEL))
    return cell


def sheet(*rows: list[Cell]) -> Image.Image:
    """Rows of labelled pictures."""
    cells = [[labelled(*cell) for cell in row] for row in rows]
    width, height = CELL[0] + MARGIN, CELL[1] + LABEL
    found = Image.new("RGB", (MARGIN + width * max(map(len, cells)), height * len(cells) + MARGIN), PAPER)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            found.paste(cell, (MARGIN + x * width, y * height))
    return found


def whole(picture: Tensor) -> Image.Image:
    """A picture [H, W, 3] as it is."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())


@cache
def models() -> demo.Models:
    """The mini models, on a GPU if there is one."""
    return demo.Models.load(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@cache
def scene(kind: str) -> Scene:
    """The shipped picture or clip as a scene, as the demo makes it, without refining."""
    found, clip = models(), kind == "clip"
    recon, times = (found.dynamic, (0, 8, 16)) if clip else (found.static, (0,))
    return build_scene(
        found.teacher, found.tokenizer, recon, shipped_sample(kind), settings=SDG_SETTINGS, times=times
    )  # fmt: skip


@cache
def teacher_frames(kind: str, view: int) -> Tensor:
    """What the teacher made along a path, [F, H, W, 3] in [0, 1]."""
    made = scene(kind)
    return decode(models().tokenizer, made.latents.to(models().teacher.device), view).cpu()


def drawn(splats: Gaussians, path: CameraTrajectory, times: int = 2) -> Tensor:
    """Splats along a path, so many times as large as it says, [F, H, W, 3]."""
    larger = path.resized(times * path.height, times * path.width).to(splats.means.device)
    return render(splats, larger, store="cpu").rgb


def ends(kind: str) -> list[tuple[str, int, int]]:
    """Label, path and frame of the places that are shown: the ends of five paths, half way of the first circle."""
    names = [path.name for path in scene(kind).cameras]
    return [(f"{n}, last frame", i, 16) for i, n in enumerate(names[:5])] + [(f"{names[5]}, frame 4", 5, 4)]


def save(picture: Image.Image, path: Path) -> None:
    """As good a JPEG as fits the room of its folder."""
    for quality in range(90, 30, -5):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= ROOM[path.parent]:
            break
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes, quality {quality}\n")


def in_threes(cells: list[Cell]) -> Image.Image:
    """Rows of three."""
    return sheet(*(cells[start : start + 3] for start in range(0, len(cells), 3)))


def every_eighth(label: str, frames: Tensor) -> list[Cell]:
    """Frames 0, 8 and 16 of a clip."""
    return [(label.format(i), frames[i]) for i in (0, 8, 16)]


def six_ends(of_splats: bool) -> Image.Image:
    """The ends of the paths: the splats', or the teacher's."""
    made = scene("picture")
    splats = made.splats.frames[0]
    return in_threes([
        (name, drawn(splats, made.cameras[v][f : f + 1])[0] if of_splats else teacher_frames("picture", v)[f])
        for name, v, f in ends("picture")
    ])  # fmt: skip


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


def decoded() -> Image.Image:
    """Frames of the path to the right."""
    return in_threes([(f"frame {i}", teacher_frames("picture", 1)[i]) for i in (0, 3, 6, 10, 13, 16)])


def latents() -> Image.Image:
    """Frames 0, 11 and 16 of all six paths."""
    names = [path.name for path in scene("picture").cameras]
    first = [(f"path {i}: {name}", teacher_frames("picture", i)[0]) for i, name in enumerate(names)]
    return sheet(first, *([(f"frame {f}", teacher_frames("picture", i)[f]) for i in range(6)] for f in (11, 16)))


def evaluated() -> Image.Image:
    """The best and the worst frame of the splats, beside the error."""
    made, wanted, found = scene("picture"), [], []
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
    made = scene("picture")
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
        made = scene(kind)
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
    depth = sample.depth / sample.depth[sample.depth > 0].min()
    grey = ((1 / depth - 1 / far) / (1 / near - 1 / far)).clamp(0, 1)
    tries = [("near 1, far 13, fov 41: right", near, far, 41.0), ("far 1.5: too flat", near, 1.5, 41.0),
             ("far 200: too deep", near, 200.0, 41.0), ("fov 100: leans", near, far, 100.0)]  # fmt: skip
    cells = [("picture", sample.frames[0]), ("depth, near-far", grey[0, ..., None].expand(-1, -1, 3))]
    for label, low, high, fov in tries:
        geometry = from_depth(sample.frames, grey, "near-far", near=low, far=high, fov=fov)
        path = camera_paths(geometry.cameras, PathSettings("right", 17))[0]
        cells.append((label, preview_cache(geometry, path, every=16)[0][-1]))
    return in_threes(cells)


@cache
def demo_folder() -> Path:
    """What ``lyra demo`` writes."""
    folder = Path(tempfile.mkdtemp(prefix="lyra-pictures-"))
    demo.run(folder, models().teacher.device, lambda label: no_progress, lambda line: None)
    return folder


def demo_sheet(kind: str) -> Image.Image:
    """A contact sheet of the demo at the README's width."""
    picture = Image.open(demo_folder() / kind / "contact_sheet.png").convert("RGB")
    height = round(picture.height * README_WIDTH / picture.width)
    return picture.resize((README_WIDTH, height), Image.Resampling.LANCZOS)


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "demo": partial(demo_sheet, "picture"),
    "demo_clip": partial(demo_sheet, "clip"),
    "LyraCameraPaths": around_the_points,
    "LyraCropSplats": cropped,
    "LyraDecodeLatents": decoded,
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
    "LyraRenderSplats": rendered,
    "LyraSampleScene": sample_scene,
    "LyraSaveSplatSequence": sequence,
    "LyraSelectTime": moments,
}
SHOTS = ("picture_to_3d", "clip_to_4d")  # templates whose run is a picture of the README too


def place(name: str) -> Path:
    """The file of a picture that the library draws."""
    return (HELP if name.startswith("Lyra") else ASSETS) / f"{name}.jpg"


def shoot(url: str, names: list[str]) -> None:
    """Pictures of templates as the editor shows them after a run, for the template dialog and the README."""
    for workflow in (path for path in sorted(TEMPLATES.glob("*.json")) if not names or path.stem in names):
        with tempfile.TemporaryDirectory() as folder:
            shot, editor = Path(folder, "shot.png"), ROOT / "tests" / "comfyui" / "editor.mjs"
            words = ["node", editor, url, workflow, "--picture", shot, "--run", "900"]
            said = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
            ended = json.loads(said)[0]["run"]
            if ended != "execution_success":
                sys.stdout.write(f"{workflow.stem}: not remade, its run ended as {ended}\n")
                continue
            picture = Image.open(shot).convert("RGB")
        widths = {TEMPLATES: TEMPLATE_WIDTH} | ({ASSETS: README_WIDTH} if workflow.stem in SHOTS else {})
        for target, width in widths.items():
            size = width, round(picture.height * width / picture.width)
            save(picture.resize(size, Image.Resampling.LANCZOS), target / f"{workflow.stem}.jpg")


def main() -> None:
    """Remake what is named, or all that can be made here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="demo, demo_clip, node ids, or templates with --editor")
    parser.add_argument("--editor", metavar="URL", help="of a running ComfyUI: remake what the editor shows")
    parser.add_argument("--list", action="store_true", help="say what is made by what, and make nothing")
    args = parser.parse_args()
    if args.list:
        drawn_here = {place(name) for name in DRAWN} | {p.with_suffix(".jpg") for p in TEMPLATES.glob("*.json")}
        drawn_here |= {ASSETS / f"{name}.jpg" for name in SHOTS}
        for path in sorted((*HELP.glob("*.jpg"), *ASSETS.glob("*.jpg"), *TEMPLATES.glob("*.jpg"))):
            known = "here" if path in drawn_here else "not here: of the editor by hand, or of a longer run"
            sys.stdout.write(f"{path.relative_to(ROOT)}: {known}\n")
        return
    for name in args.names or DRAWN:
        if name in DRAWN:
            with torch.inference_mode():
                save(DRAWN[name](), place(name))
    if args.editor:
        shoot(args.editor, args.names)


if __name__ == "__main__":
    main()
