"""What camera files say of lenses: everything but a pinhole is refused by the name of its key."""

import re
from collections.abc import Mapping

PINHOLES = ("pinhole", "simple_pinhole", "perspective", "opencv")  # the last with coefficients that must be zero
MODEL_KEY = re.compile(r"(camera_?|lens_?|projection_?)(model|type)|projection|distortion_model", re.IGNORECASE)
LENS_KEY = re.compile(
    r"[kpsb]\d+|xi|skew|tau[xy]|omega"
    r"|.*(distort|fish_?eye|radial|tangential|shutter|ftheta|omnidirectional|equirect|panoram|orthograph).*",
    re.IGNORECASE,
)


def check_lens(entry: Mapping[str, object]) -> None:
    """Raise ValueError that names what an entry of a camera file says of lens models, and coefficients not zero."""
    bent = [f"{key} {str(value)[:60]}" for key, value in entry.items() if is_bent(key, value)]
    if bent:
        raise ValueError(f"{', '.join(bent)}; only pinhole cameras are read: undistort first")


def is_bent(key: str, value: object) -> bool:
    """Whether a key and its value mean a lens that is no pinhole."""
    if MODEL_KEY.fullmatch(key):
        return str(value or "pinhole").lower() not in PINHOLES
    return bool(LENS_KEY.fullmatch(key)) and is_set(value)


def is_lens_key(key: str) -> bool:
    """Whether a key of a camera file says something of the lens."""
    return bool(MODEL_KEY.fullmatch(key) or LENS_KEY.fullmatch(key))


def is_set(value: object) -> bool:
    """Whether a value, or any inside it, is something else than zero, false or nothing."""
    if isinstance(value, Mapping):
        return any(map(is_set, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_set, value))
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "none", "no")
    return bool(value)
