"""Cards of the templates that sample with core's nodes: one path of the shipped picture, as ComfyUI makes it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw

from .sheets import GREEN, INK, MARGIN, PAPER, TEMPLATE_WIDTH, font

FRAMES = (0, 8, 16)  # of the path
NOISY = (5, 7, 12)  # of KSampler's 12 steps: noise, half of it, a picture
STAGES = (10, 20)  # the step between two stages, and the last
THRESHOLDS = (0.0, 0.1, 0.2)  # of EasyCache, 0 is without it
CACHED_STEPS = 35
OFF = (70, 74, 80)  # a step that was left out

Prompt = dict[str, dict]


class Server(Protocol):
    """A running ComfyUI, as tests/comfyui starts it."""

    url: str
    base: Path
    log: Path

    def run(self, prompt: Prompt) -> dict[str, dict]:
        """What each node has shown."""


def node(kind: str, **inputs: object) -> dict:
    """A node in API form."""
    return {"class_type": kind, "inputs": inputs}


def one_path(preset: str) -> Prompt:
    """A path around the shipped picture, and what a sampler is told of it: node "told"."""
    lens = {"frames": 17, "fps": 24, "width": 160, "height": 96, "fov": 41, "center_depth": 1, "draw": "seeded"}
    mini = {"precision": "auto", "file": "mini/mini_tokenizer.safetensors"}
    teacher = mini | {"file": "mini/mini_teacher.safetensors", "attention": "auto", "memory": "auto"}
    move = {"preset": preset, "movement": 1, "rotation": "center_facing", "seed": 1}
    return {
        "scene": node("LyraSampleScene", sample="picture"),
        "teacher": node("LyraLoadTeacher", **teacher),
        "tokenizer": node("LyraLoadTokenizer", **mini),
        "path": node("LyraCameraPaths", geometry=["scene", 0], teacher=["teacher", 0], **move | lens),
        "told": node(
            "LyraGEN3CConditioning", model=["teacher", 1], tokenizer=["tokenizer", 0], geometry=["scene", 0],
            cameras=["path", 0], foreground_masking=True,
        ),
    }  # fmt: skip


def stopped(model: str, slot: int, solver: str, steps: int, last: int) -> Prompt:
    """A run that stops after the ``last`` of its steps with the noise that is left, and its frames: node "shown"."""
    run = {"steps": steps, "start_at_step": 0, "end_at_step": last, "return_with_leftover_noise": "enable"}
    run |= {"add_noise": "enable", "noise_seed": 1, "cfg": 1, "sampler_name": solver, "scheduler": "karras"}
    told = {"positive": ["told", 0], "negative": ["told", 1], "latent_image": ["told", 2]}
    return {
        "sampled": node("KSamplerAdvanced", model=[model, slot], **told | run),
        "latents": node(
            "LyraLatentsFromCore", latent=["sampled", 0], cameras=["told", 3], dynamic=False, family="mini"
        ),
        "frames": node("LyraDecodeLatents", latents=["latents", 0], tokenizer=["tokenizer", 0], view=0),
        "shown": node("PreviewImage", images=["frames", 0]),
    }


def frames_of(server: Server, prompt: Prompt) -> list[Image.Image]:
    """The frames that a run shows."""
    shown = server.run(prompt)["shown"]["images"]
    return [Image.open(server.base / s["type"] / s["subfolder"] / s["filename"]).convert("RGB") for s in shown]


def ksampler(server: Server) -> Image.Image:
    """Three frames of a path, in rows, as noise becomes a picture."""
    columns = [frames_of(server, one_path("zoom_in") | stopped("teacher", 1, "dpmpp_2m", 12, n)) for n in NOISY]
    width = (TEMPLATE_WIDTH - MARGIN * (len(columns) + 1)) // len(columns)
    height = round(width * 0.6)
    found = Image.new("RGB", (TEMPLATE_WIDTH, MARGIN + (height + MARGIN) * len(FRAMES)), PAPER)
    for x, frames in enumerate(columns):
        for y, frame in enumerate(FRAMES):
            cell = frames[frame].resize((width, height), Image.Resampling.BICUBIC)
            found.paste(cell, (MARGIN + x * (width + MARGIN), MARGIN + y * (height + MARGIN)))
    return found


def two_stages(server: Server) -> Image.Image:
    """A frame: as the first stage leaves it on the left, as the second does on the right."""
    first, second = (
        frames_of(server, one_path("right") | stopped("teacher", 1, "euler", STAGES[1], n))[FRAMES[1]] for n in STAGES
    )
    size = (TEMPLATE_WIDTH, round(TEMPLATE_WIDTH * 0.6))
    first, found = (frame.resize(size, Image.Resampling.BICUBIC) for frame in (first, second))
    middle = TEMPLATE_WIDTH // 2
    found.paste(first.crop((0, 0, middle, size[1])))
    draw = ImageDraw.Draw(found)
    draw.rectangle((middle - 2, 0, middle + 1, size[1]), fill=INK)
    for number, x in (("1", middle - 28), ("2", middle + 28)):
        draw.ellipse((x - 15, size[1] - 40, x + 15, size[1] - 10), fill=PAPER)
        draw.text((x, size[1] - 25), number, fill=INK, font=font(18), anchor="mm")
    return found


def easycache(server: Server) -> Image.Image:
    """The same frame of three runs, and the steps that each computed."""
    cell, left = (200, 120), 226
    found = Image.new("RGB", (TEMPLATE_WIDTH, MARGIN + (cell[1] + MARGIN) * len(THRESHOLDS)), PAPER)
    draw = ImageDraw.Draw(found)
    for row, threshold in enumerate(THRESHOLDS):
        frame, computed = cached(server, threshold)
        top = MARGIN + row * (cell[1] + MARGIN)
        found.paste(frame.resize(cell, Image.Resampling.BICUBIC), (MARGIN, top))
        draw.text((left, top + 12), f"{computed} steps", fill=INK, font=font(22))
        for i in range(CACHED_STEPS):
            x, y = left + i % 12 * 13, top + 54 + i // 12 * 18
            draw.rectangle((x, y, x + 8, y + 12), fill=GREEN if i < computed else OFF)
    return found


def cached(server: Server, threshold: float) -> tuple[Image.Image, int]:
    """The last frame of a path with EasyCache's threshold, and how many steps were computed."""
    cache = {"reuse_threshold": threshold, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
    model = {"cache": node("EasyCache", model=["teacher", 1], **cache)} if threshold else {}
    place = ("cache", 0) if threshold else ("teacher", 1)
    run = one_path("up") | model | stopped(*place, "euler", CACHED_STEPS, CACHED_STEPS)
    frame = frames_of(server, run)[FRAMES[-1]]
    if not threshold:
        return frame, CACHED_STEPS
    skipped = re.findall(rf"EasyCache - skipped (\d+)/{CACHED_STEPS} steps", server.log.read_text(errors="replace"))
    return frame, CACHED_STEPS - int(skipped[-1])


SAMPLED: dict[str, Callable[[Server], Image.Image]] = {
    "native_easycache": easycache,
    "native_ksampler": ksampler,
    "native_two_stages": two_stages,
}
