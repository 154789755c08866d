"""People's own pictures and clips as a job: what ``lyra batch`` makes, and the page that shows it.

<out>/<name>.ply, or the folder <name> of a clip   splats, refined
<out>/<name>.spz, .html ...                        the same in other forms, if asked for (see ``exports``)
<out>/cameras/<name>.json                          a picture's paths; those of a clip lie in its folder
<out>/thumbnails/<name>.jpg                        the picture, and the splats from where the paths end
<out>/<name>.json                                  what it was made from; written last, so it says what is finished
<out>/index.html                                   all thumbnails
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from time import perf_counter

import torch

from ..callbacks import no_progress
from ..cameras.sets import end_to_end
from ..files.cameras.lyra_json import save_cameras_json
from ..files.media.contact_sheet import contact_sheet
from ..files.media.depth import LENGTHS
from ..files.media.depth_values import Meaning, Unit
from ..files.media.images import save_image
from ..files.media.video import VIDEOS
from ..files.places import Place
from ..files.reading import parse_json
from ..files.scenes.sdg_writer import clip_name
from ..files.splats.ply import save_ply
from ..files.splats.sequence import save_sequence
from ..gen3c.generate import GenerateSettings
from ..gen3c.load import Teacher
from ..gen3c.modes import SETTINGS, Mode, in_mode, told
from ..geometry.geometry import Geometry
from ..pipeline import Estimate, Scene, build_scene, likely_meaning, picture_geometry, refine
from ..recon.load import load_recon
from ..recon.model import Recon
from ..refine.schedule import settings_for
from ..sources.depth_anything import DepthAnything
from ..splats.render import render
from ..tokenizer.model import CosmosTokenizer
from ..training.data.sdg_memory import SDG_SETTINGS
from ..versions import RESULTS
from ..weights.shipped import shipped_model
from .exports import PLY, check_forms, export, wanted
from .models import teacher_on, tokenizer_on
from .work import Make, missing

PICTURES = (
    ".jpg",
    ".jpeg",
    ".webp",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
)  # by rank: beside x.jpg x.png is depth
NOT_HOW = ("folder", "out", "share", "formats", "mode")  # fields of a job that do not change splats, or see ``key``
DEPTH = "_depth"  # ends the name of a file that holds depth


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture or clip of a folder, and its depth."""

    name: str
    picture: Path
    depth: Path | None

    def key(self, how: Mapping[str, object]) -> str:
        """Names the files as they are now, and how they are made use of: 16 hexadecimal digits."""
        there = [(file, file.stat()) for file in (self.picture, self.depth) if file]
        files = [(file.name, about.st_size, about.st_mtime_ns) for file, about in there]
        return hashlib.sha256(json.dumps([files, how], sort_keys=True).encode()).hexdigest()[:16]


def find_pictures(folder: Path) -> list[Found]:
    """The pictures and clips that lie in a folder, by name, each with the depth beside it.

    Depth of ``x.jpg`` is ``x_depth`` of any kind, a folder of frames too, or else ``x`` with the ending of a file of
    lengths, or ``x.png``. ValueError for two pictures of one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if not file.name.startswith("."):
            by_stem.setdefault(file.name if file.is_dir() else file.stem, []).append(file)
    found: dict[str, Found] = {}
    for stem, files in by_stem.items():
        shown = [file for file in files if file.suffix.lower() in PICTURES + VIDEOS and not stem.endswith(DEPTH)]
        if not shown:
            continue
        picture, *others = sorted(shown, key=lambda file: (PICTURES + VIDEOS).index(file.suffix.lower()))
        depth = [*by_stem.get(stem + DEPTH, ()), *(file for file in files if file.suffix.lower() in LENGTHS)]
        depth += [file for file in others if file.suffix.lower() == ".png"]
        if len(others) > 1 or (others and others[0] not in depth):
            raise ValueError(f"{folder}: {picture.name} and {others[0].name} have one name; rename one")
        name = clip_name(stem)
        if name in found:
            raise ValueError(f"{picture} and {found[name].picture} would both be called '{name}'; rename one")
        found[name] = Found(name=name, picture=picture, depth=next(iter(depth), None))
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class PicturesJob:
    """Splats of the pictures and clips of a folder; models None are the mini ones."""

    folder: str
    out: str
    share: tuple[int, int] = (0, 1)  # which of how many shards of the list
    formats: tuple[str, ...] = ()  # forms of splats beside PLY
    depth_model: str | None = None  # a folder of Depth Anything, for what has no depth beside it
    meaning: Meaning | None = None  # of the depth's values; None: by their kind
    unit: Unit | None = None
    near: float = field(default=1.0, metadata={"help": "near-far and guessed depth: of white"})
    far: float = field(default=5.0, metadata={"help": "near-far and guessed depth: of black"})
    fov: float = field(default=50.0, metadata={"help": "vertical field of view in degrees"})
    refine: float | None = field(
        default=None,
        metadata={"help": "seconds for a scene's splats; by default what suits the device, 0 leaves it out"},
    )
    steps: int = field(default=SDG_SETTINGS.steps, metadata={"help": "of the teacher's sampler"})
    guidance: float = field(default=float(SDG_SETTINGS.guidance), metadata={"help": "of the teacher's sampler"})
    mode: Mode = "as set"
    teacher: str | None = None
    tokenizer: str | None = None
    recon: str | None = None

    @property
    def settings(self) -> GenerateSettings:
        """How the teacher samples, as far as the card can."""
        return in_mode(replace(SDG_SETTINGS, steps=self.steps, guidance=self.guidance), self.mode)

    def place(self) -> Place:
        """Where results lie."""
        return Place.of(self.out)

    def found(self) -> list[Found]:
        """The pictures of the shard."""
        index, count = self.share
        return find_pictures(Path(self.folder))[index::count]

    def left(self) -> list[str]:
        """Names of those that are not there in every form, or were made from another picture or in another way."""
        there = set(self.place().names())
        items = self.found()
        made = {item.name for item in items if f"{item.name}.json" in there and self.is_made(item)}
        return list(missing((item.name for item in items), made))

    def is_made(self, item: Found) -> bool:
        """Whether what is there was made from the picture as it is now, and nothing is wanted of it."""
        about = self.record(item)
        return about.get("key") == self.key(item) and not wanted(self.formats, about)

    def record(self, item: Found) -> dict:
        """What is written of one that is there; nothing of others."""
        try:
            about = parse_json((self.place() / f"{item.name}.json").read())
        except FileNotFoundError:
            return {}
        return about if isinstance(about, dict) else {}

    def key(self, item: Found) -> str:
        """See Found. A mode counts by what it decides, whatever the card made of that: the record tells."""
        how = {name: value for name, value in asdict(self).items() if name not in NOT_HOW}
        decided = SETTINGS[self.mode]
        how = {name: value for name, value in how.items() if name not in decided}
        return item.key(how | ({"mode": decided} if decided else {}) | {"results": RESULTS})

    def briefed(self) -> "PicturesJob":
        """It is short enough."""
        return self

    def maker(self, device: str) -> Make:
        """Makes the splats of a picture by its name."""
        return PictureMaker(self, torch.device(device))


class PictureMaker:
    """The models, loaded when they are first needed."""

    def __init__(self, job: PicturesJob, device: torch.device):
        self.job, self.device = job, device
        self.items = {item.name: item for item in job.found()}
        self.recons: dict[bool, Recon] = {}
        check_forms(job.formats)

    @cached_property
    def filming(self) -> tuple[Teacher, GenerateSettings]:
        """The teacher of frames along the paths, and how it samples here."""
        return teacher_on(self.device, self.job.teacher, self.job.settings)

    @cached_property
    def tokenizer(self) -> CosmosTokenizer:
        """Of their latents."""
        return tokenizer_on(self.device, self.job.tokenizer)

    @cached_property
    def estimate(self) -> Estimate:
        """Of depth."""
        assert self.job.depth_model
        return DepthAnything.load(self.job.depth_model, self.device)

    def recon(self, moving: bool) -> Recon:
        """Of splats."""
        if moving not in self.recons:
            file = self.job.recon or shipped_model("recon_dynamic" if moving else "recon_static")
            self.recons[moving] = load_recon(Path(file)).float().to(self.device)
        return self.recons[moving]

    def __call__(self, name: str) -> None:
        """Make one in all forms that it is not there in."""
        item = self.items[name]
        about = self.job.record(item)
        if about.get("key") != self.job.key(item):
            about = self.make(item, about)
        export(self.job.place(), name, about, self.job.formats)

    def make(self, item: Found, before: dict) -> dict:
        """Make its splats, and put them where they belong; the record of it comes last, in place of the one before."""
        name, place, start = item.name, self.job.place(), perf_counter()
        geometry = self.geometry(item)
        last = len(geometry.frames) - 1
        times = (0, last // 2, last) if last else (0,)
        teacher, settings = self.filming
        scene = build_scene(teacher, self.tokenizer, self.recon(bool(last)), geometry, settings=settings, times=times)
        scene = self.refined(scene)
        with place.staging(name) as folder:
            about = self.write(scene, name, folder) | {"seconds": round(perf_counter() - start, 1)}
            for file in (file for files in before.get("forms", {}).values() for file in files):
                (place / file).remove()  # it shows what was here before
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                (place / file.relative_to(folder).as_posix()).put(file)
        about = {"picture": item.picture.name, "key": self.job.key(item), "filmed": told(settings)} | about
        (place / f"{name}.json").write(json.dumps(about, indent=1))
        return about

    def geometry(self, item: Found) -> Geometry:
        """The picture and its depth, guessed where there is none and the job says so."""
        depth = item.depth or (self.job.depth_model and self.estimate)
        if not depth:
            raise ValueError(
                f"{item.picture.name}: no depth beside it, such as {item.picture.stem}_depth.png; or --depth auto"
            )
        meaning = self.job.meaning or ("near-far" if item.depth is None else likely_meaning(item.depth, self.job.unit))
        near, far = (self.job.near, self.job.far) if meaning == "near-far" else (None, None)
        return picture_geometry(
            item.picture, depth, meaning, fov=self.job.fov, count=self.filming[0].config.trained_frames,
            unit=self.job.unit, near=near, far=far,
        )  # fmt: skip

    def refined(self, scene: Scene) -> Scene:
        """The scene with its splats refined."""
        splats, path = scene.splats, scene.cameras[0]
        if self.job.refine == 0:
            return scene
        settings = settings_for(self.device, path.height * path.width, seconds=self.job.refine or 0.0)
        found = refine(
            splats.frames, scene.cameras, scene.latents.to(self.device), self.tokenizer, scene.geometry,
            settings=settings, times=splats.times, on_step=no_progress,
        )  # fmt: skip
        return replace(scene, splats=replace(splats, frames=found.splats))

    def write(self, scene: Scene, name: str, folder: Path) -> dict[str, object]:
        """Splats and thumbnail; what to say of them."""
        frames, rate = scene.splats.frames, scene.geometry.cameras.fps
        metres = scene.geometry.scale if scene.geometry.metric else None
        if len(frames) == 1:
            file = f"{name}.ply"
            save_ply(folder / file, frames[0].to("cpu"))
            (folder / "cameras").mkdir()
            save_cameras_json(folder / "cameras" / f"{name}.json", scene.cameras, metres)
        else:
            save_sequence(folder / name, scene.splats.to("cpu"), scene.cameras, fps=rate)
            file = f"{name}/manifest.json"
        save_image(folder / "thumbnails" / f"{name}.jpg", thumbnail(scene, name))
        counts = [len(each) for each in frames]
        return {"file": file, "splats": counts, "times": list(scene.splats.times), "fps": rate, "metres": metres}


def thumbnail(scene: Scene, name: str) -> torch.Tensor:
    """The picture, and the first splats from the first camera and from where some paths end: [H, W, 3]."""
    cameras = [scene.cameras[0][:1], *(path[-1:] for path in scene.cameras[:4])]
    seen = render(scene.splats.frames[0], end_to_end(cameras).to(scene.splats.frames[0].means.device)).rgb.cpu()
    picture = scene.geometry.frames[:1].cpu()
    return contact_sheet([(f"{name}: the picture, and its splats from five places", torch.cat((picture, seen)))])


def write_page(place: Place) -> int:
    """index.html of all that is there; how many scenes it shows."""
    records = sorted(name for name in place.names() if name.endswith(".json"))
    figures = []
    for name in records:
        about = parse_json((place / name).read())
        figures.append(figure(name.removesuffix(".json"), about))
    text = PAGE.format(count=len(figures), figures="\n".join(figures))
    (place / "index.html").write(text)
    return len(figures)


def figure(name: str, about: dict) -> str:
    """One scene of the page: the thumbnail opens the page of its splats if there is one, and each form has a link."""
    forms = {PLY: [about["file"]]} | about.get("forms", {})
    (shown, *_), picture = forms.get("html", forms[PLY]), escape(str(about["picture"]))
    splats = " + ".join(f"{count:,}" for count in about["splats"])
    links = " ".join(link(file, kind) for kind, files in forms.items() for file in files)
    return (
        f'<figure><a href="{escape(shown, quote=True)}">'
        f'<img src="thumbnails/{escape(name, quote=True)}.jpg" alt="{picture}"></a>'
        f"<figcaption>{picture}: {splats} splats, {about['seconds']} s: {links}</figcaption></figure>"
    )


def link(file: str, kind: str) -> str:
    """A link to a file of the scene; of several moments to each."""
    number = f" {int(Path(file).stem)}" if "/" in file and Path(file).stem.isdecimal() else ""
    return f'<a href="{escape(file, quote=True)}">{kind}{number}</a>'


PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{count} scenes</title>
<style>
body {{ background: #181a1e; color: #e1e4e8; font: 14px sans-serif; margin: 2em }}
figure {{ margin: 0 0 1.5em }} img {{ max-width: 100% }} a {{ color: inherit }}
</style>
<h1>{count} scenes</h1>
{figures}
"""
