"""Camera paths from and to any format we know, told apart by what is there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ..cameras import CameraTrajectory
from .camera_path_json import load_camera_path
from .cameras_json import load_cameras_json, read_object, save_cameras_json
from .colmap import find_model, load_colmap, save_colmap
from .sdg import load_sdg_cameras, read_view, save_sdg_cameras
from .transforms_json import load_transforms, save_transforms

CAMERAS = "cameras.json"  # in a folder that a save made
KNOWN = (
    "a JSON path set of ours, nerfstudio's transforms.json or camera_path.json, a COLMAP text model, or npz files "
    "in folders pose and intrinsics"
)
