"""Pictures of the template dialog: what a template makes, since a graph cannot be read at that size."""

import json
from collections.abc import Callable
from functools import partial

from lyra_pack.comfyui_lyra.cameras.drawing import draw_paths
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, six_paths
from lyra_pack.comfyui_lyra.files.scenes.sample import shipped_sample
from lyra_pack.comfyui_lyra.geometry.geometry import point_cloud
from lyra_pack.comfyui_lyra.splats.render import depth_view
from lyra_pack.comfyui_lyra.viewer.state import view_of
from PIL import Image, ImageDraw

from .scenes import depth_picture, drawn, scene
from .sheets import INK, MARGIN, PAPER, TEMPLATE_WIDTH, TEMPLATES, font, narrowed, page, sheet, whole

SHOWN = {  # of templates that run here: the node that shows what was made
    "clip_to_4d": 22,
    "explore_clip": 8,
    "explore_scene": 3,
    "latents_to_3d": 14,
    "picture_to_3d": 10,
    "splat_tools": 9,
    "splat_tour": 10,
    "train_decoder": 6,
}
KEYFRAMES = 8  # the node of film_again whose view holds them
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


def below(first: Image.Image, second: Image.Image) -> Image.Image:
    """Two pictures of the card's width, one above the other."""
    found = Image.new("RGB", (TEMPLATE_WIDTH, first.height + second.height))
    found.paste(first)
    found.paste(second, (0, first.height))
    return found


def prompted() -> Image.Image:
    """A prompt above the paths."""
    return below(page((), (), TEMPLATE_WIDTH, PROMPT), paths("picture"))


def released(kind: str) -> Image.Image:
    """The picture, or three frames of the clip, above the paths around it."""
    frames = shipped_sample(kind).frames
    return below(side_by_side([whole(frame) for frame in frames[:: max(len(frames) // 2, 1)]]), paths(kind))


def with_own_depth() -> Image.Image:
    """A photo and its depth picture above its refined splats, from the left and from the right."""
    made = scene("picture")
    grey = depth_picture(1.0, 13.0)[0, ..., None].expand(-1, -1, 3)
    seen = [drawn(made.splats.frames[0], made.cameras[view][10:11])[0] for view in (0, 1)]
    return below(side_by_side([whole(made.geometry.frames[0]), whole(grey)]), side_by_side(list(map(whole, seen))))


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a row as wide as the card, a single one in its middle."""
    width = (TEMPLATE_WIDTH - MARGIN * (len(pictures) + 1)) // max(len(pictures), 2)
    small = [picture.resize((width, round(width * 0.6)), Image.Resampling.BICUBIC) for picture in pictures]
    found = Image.new("RGB", (TEMPLATE_WIDTH, small[0].height + 2 * MARGIN), PAPER)
    left = (TEMPLATE_WIDTH - sum(picture.width + MARGIN for picture in small) + MARGIN) // 2
    for i, picture in enumerate(small):
        found.paste(picture, (left + i * (width + MARGIN), MARGIN))
    return found


def filmed_again() -> Image.Image:
    """The refined splats of the shipped picture from the keyframes that film_again has set, in their order."""
    made = scene("picture")
    film = json.loads((TEMPLATES / "film_again.json").read_text(encoding="utf-8"))
    (state,) = (node["widgets_values_named"]["state"] for node in film["nodes"] if node["id"] == KEYFRAMES)
    cameras = view_of(state, made.cameras[0][:1], 1).keyframes
    return in_order([whole(frame) for frame in drawn(made.splats.frames[0], cameras, 4)])


def in_order(pictures: list[Image.Image]) -> Image.Image:
    """Numbered pictures: the first one large, all of them in a row below."""
    width = (TEMPLATE_WIDTH - MARGIN * (len(pictures) + 1)) // len(pictures)
    large = narrowed(pictures[0], TEMPLATE_WIDTH)
    small = [narrowed(picture, width) for picture in pictures]
    found = Image.new("RGB", (TEMPLATE_WIDTH, large.height + small[0].height + 2 * MARGIN), PAPER)
    found.paste(large)
    draw, top = ImageDraw.Draw(found), large.height + MARGIN
    for i, picture in enumerate(small):
        left = MARGIN + i * (width + MARGIN)
        found.paste(picture, (left, top))
        draw.ellipse((left + 5, top + 5, left + 29, top + 29), fill=PAPER)
        draw.text((left + 17, top + 17), str(i + 1), fill=INK, font=font(15), anchor="mm")
    return found


DRAWN: dict[str, Callable[[], Image.Image]] = {  # by the library: what a template is given, or makes
    "film_again": filmed_again,
    "da3_clip_to_4d": partial(with_depth, "clip"),
    "moge_to_3d": partial(with_depth, "picture"),
    "depth_picture_to_3d": with_own_depth,
    "released_lyra": partial(released, "picture"),
    "released_lyra_4d": partial(released, "clip"),
    "text_to_3d": prompted,
}
