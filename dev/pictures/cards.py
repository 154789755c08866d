"""Pictures of the template dialog: what a template makes, since a graph cannot be read at that size."""

from collections.abc import Callable
from functools import partial

from lyra_pack.comfyui_lyra.cameras.drawing import draw_paths
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.geometry.geometry import point_cloud
from lyra_pack.comfyui_lyra.splats.render import depth_view
from PIL import Image

from .sheets import TEMPLATE_WIDTH, page, sheet, whole

SHOWN = {  # of templates that run here: the node that shows what was made
    "clip_to_4d": 22,
    "depth_picture_to_3d": 10,
    "explore_clip": 8,
    "explore_scene": 3,
    "film_again": 13,
    "latents_to_3d": 14,
    "native_easycache": 14,
    "native_ksampler": 13,
    "native_two_stages": 15,
    "picture_to_3d": 10,
    "splat_tools": 9,
    "splat_tour": 10,
    "train_decoder": 6,
}
PROMPT = "“a cosy reading room …”"  # as the template's begins


def with_depth(kind: str) -> Image.Image:
    """The shipped picture, or frames of the clip, and what a depth model makes of them."""
    sample = shipped_sample(kind)
    far = depth_view(sample.depth)
    rows = [(("a frame", sample.frames[i]), ("its depth", far[i])) for i in range(0, len(far), 8)]
    if kind == "clip":
        return sheet(*map(list, rows), size=(191, 115))
    return sheet(*([cell] for cell in rows[0]), size=(388, 233))


def paths(kind: str) -> Image.Image:
    """The six paths around the points of the shipped picture or clip."""
    sample = shipped_sample(kind)
    around = six_paths(sample.cameras[:1], PathSettings(frames=17))
    return whole(draw_paths(around, *point_cloud(sample), TEMPLATE_WIDTH, 240))


def prompted() -> Image.Image:
    """A prompt above the paths."""
    words, below = page((), (), TEMPLATE_WIDTH, PROMPT), paths("picture")
    found = Image.new("RGB", (TEMPLATE_WIDTH, words.height + below.height))
    found.paste(words)
    found.paste(below, (0, words.height))
    return found


DRAWN: dict[str, Callable[[], Image.Image]] = {  # of templates that need models which are not here
    "da3_clip_to_4d": partial(with_depth, "clip"),
    "moge_to_3d": partial(with_depth, "picture"),
    "released_lyra": partial(paths, "picture"),
    "released_lyra_4d": partial(paths, "clip"),
    "text_to_3d": prompted,
}
