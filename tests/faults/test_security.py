"""SECURITY.md names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 10
    assert not [place for place in named if f"def {place[1]}(" not in (ROOT / place[0]).read_text(encoding="utf-8")]
    for alone in re.findall(r"`(test_\w+)`", PAGE):
        assert any(f"def {alone}(" in (ROOT / file).read_text(encoding="utf-8") for file, _ in named), alone
    assert all((ROOT / file).is_file() for file in re.findall(r"`(tests/[\w/]+\.py)", PAGE))


def test_json_of_files_goes_through_the_one_reader():
    """``parse_json`` knows of brackets without end; the other one turns what it has made itself."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "comfyui_lyra").rglob("*.py")}
    found = {path.name for path, text in sources.items() if re.search(r"\bjson\.loads?\(", text)}
    assert found == {"reading.py", "resuming.py"}
