"""Node tests run in this process under the real comfy_api, on the CPU, with folders of their own.

``PYTHONPATH=/path/to/ComfyUI python -m pytest tests/nodes``, with an interpreter that has ComfyUI's requirements.
"""

import importlib.util

import pytest
import torch

if importlib.util.find_spec("comfy_api"):
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()  # before anything asks for a device


@pytest.fixture
def folders(tmp_path):
    """ComfyUI's input, output and temporary folders, empty."""
    import folder_paths

    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(tmp_path / kind))
    return tmp_path
