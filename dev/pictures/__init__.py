"""What ``make_pictures.py`` draws: binds this checkout as ``lyra_pack`` unless a test has done so."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if "lyra_pack" not in sys.modules:
    spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
    sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["lyra_pack"])
