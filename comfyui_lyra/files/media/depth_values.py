"""What the numbers of depth pictures are: grey levels or lengths, their unit, and whether they can be what is said."""

import logging
from typing import Literal, get_args

import torch
from torch import Tensor

log = logging.getLogger("lyra")

Unit = Literal["m", "mm", "levels"]
Meaning = Literal["near-far", "depth", "disparity"]

UNITS, MEANINGS = get_args(Unit), get_args(Meaning)
FAR = 1e9  # lengths this large are what renderers write where a ray hit nothing (Blender: 1e10)
OVERSHOOT = 0.01  # by which resizing may leave [0, 1]
TINT = 1 / 16  # difference of colours up to which a picture is grey; lossy pictures and videos leave some
LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
COLORED = "a coloured picture holds no depth; save the depth itself, grey or as EXR or npz"
LEVELS = (255, 65535)  # largest numbers of 8 and 16 bit pictures


def grey(pictures: Tensor) -> Tensor:
    """Values [...] of grey pictures [..., 3], whose colours are nearly equal, or [..., 4]: NaN where alpha is 0."""
    colors = pictures[..., :3].float()
    clear = pictures[..., 3] == 0 if pictures.shape[-1] == 4 else torch.zeros_like(colors[..., 0], dtype=torch.bool)
    spread = (colors.amax(-1) - colors.amin(-1)).nan_to_num(0, 0).masked_fill(clear, 0)
    if (spread > TINT * colors.amax(-1).abs().clamp(min=1)).any():
        raise ValueError(COLORED)
    luma = colors @ colors.new_tensor(LUMA)
    if _are_levels(colors[spread > 0], LEVELS[0]):  # bytes stay bytes
        luma = (luma * LEVELS[0]).round() / LEVELS[0]
    values = torch.where(spread > 0, luma, colors[..., 0])
    return values.masked_fill(clear, torch.nan)


def in_metres(values: Tensor, unit: Unit | None) -> Tensor:
    """Depth pictures that somebody else has read: those between 0 and 1 are levels of 8 or 16 bits, if unit is m or mm.

    ``m``: the picture's numbers. ``mm``: a thousandth of them. ``levels`` and None: the values as they came.
    """
    if unit not in ("m", "mm"):
        return values
    if (top := levels(values, least=0)) == 255:
        log.warning("the depth picture holds 8-bit levels, 256 lengths in all; use a 16-bit picture, EXR or npz")
    return values * (top or 1) / (1000 if unit == "mm" else 1)


def levels(values: Tensor, least: int = 3) -> int | None:
    """255 or 65535 if a picture holds nothing but whole numbers over that, ``least`` different ones; or None."""
    known = values[values.isfinite()]
    if not len(known) or known.min() < 0 or known.max() > 1 or known.max() == 0:
        return None
    top = next((top for top in LEVELS if _are_levels(known, top)), None)
    return top if top and len((known * top).round().unique()) >= least else None


def _are_levels(values: Tensor, top: int) -> bool:
    """Whether finite values are whole numbers over ``top``."""
    parts = (part.double() * top for part in values.flatten().split(1 << 18))  # the first one tells lengths
    return all(bool(((part - part.round()).abs() < 1e-2).all()) for part in parts)


def check_meaning(values: Tensor, meaning: Meaning, unit: Unit | None = None) -> None:
    """Raise ValueError if numbers [F, H, W] cannot be what their meaning says; warn if they hardly can."""
    if unit not in (None, *UNITS):
        raise ValueError(f"depth unit '{unit}' is none of {', '.join(UNITS)}")
    known = values[values.isfinite()]
    if meaning == "near-far":
        _check_near_far(values, known, unit)
    elif unit in ("m", "mm") and meaning == "disparity":
        raise ValueError(f"disparity is 1 / depth and has no unit {unit}; use meaning depth, or no unit")
    elif unit != "levels" and (top := levels(known)):
        _check_levels(top, meaning)
    elif meaning == "depth" and unit is None and len(known) and known.min() >= 0 and known.max() <= 1:
        log.warning(
            "all depth lies between 0 and 1, as in pictures in which white is near; if this is one, use near-far; if "
            "not, name its unit, such as m"
        )
    if meaning == "depth" and len(known) and (share := float((known < 0).float().mean())):
        if share > 0.5:
            raise ValueError(
                "depth is negative, as along an axis that points to the eye; negate it, or choose what it means"
            )
        log.warning("%.1f %% of the depth picture is negative, so unknown", 100 * share)
    if meaning == "disparity" and (values == torch.inf).any():
        log.warning("disparity is infinite in places, which is depth 0: unknown; if these are lengths, use depth")


def _check_near_far(values: Tensor, known: Tensor, unit: Unit | None) -> None:
    """Whether values are levels from 0 to 1."""
    if unit in ("m", "mm"):
        raise ValueError(f"near-far pictures hold levels between near and far, no lengths in {unit}; use meaning depth")
    if (len(known) and (known.min() < -OVERSHOOT or known.max() > 1 + OVERSHOOT)) or (values == torch.inf).any():
        numbers = values[~values.isnan()]
        low, high = float(numbers.min()), float(numbers.max())
        raise ValueError(
            f"near-far pictures hold levels from 0 to 1, these run from {low:.4g} to {high:.4g}: lengths, so use "
            "meaning depth, or disparity if they are 1 / depth"
        )


def _check_levels(top: int, meaning: Meaning) -> None:
    """What is said of levels whose meaning is lengths."""
    if top == 255:
        raise ValueError(
            f"the {meaning} picture holds 8-bit levels from 0 to 1, not lengths; use near-far and give both, or "
            "pass the depth as it was computed (EXR or the geometry nodes)"
        )
    if meaning == "depth":
        log.warning(
            "the depth picture holds 16-bit levels, read as numbers / 65535 of an unknown unit; name the unit of its "
            "numbers, m or mm, or say levels, or use near-far if white is near"
        )
