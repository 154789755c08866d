"""Pages, citations and habits: what is said of the code is there, and what the code cites can be read."""

import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOMS = ("comfyui_lyra", "nodes", "kernels_glue", "tests", "dev")
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [
    *PAGES,
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "dev").glob("*.md")),
    *(ROOT / "comfyui_lyra").rglob("*.md"),
]
# "teacher.md 1, 2", "decoder.md 2.3 step 3", "decoder.md section 13"
CITATION = re.compile(r"\b([\w-]+)\.md((?:,? (?:section )?\d+(?:\.\d+)?(?![\d,]*\d))+)")
HEADING = re.compile(r"^#+ (\d+(?:\.\d+)?)\.? ", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
COMMANDS = ("python run.py test", "python run.py demo")


def citations(text: str) -> list[tuple[str, str]]:
    """(page, number) of every citation in a text."""
    return [(page, number) for page, tail in CITATION.findall(text) for number in re.findall(r"\d+(?:\.\d+)?", tail)]


def headings(page: str) -> set[str]:
    """The numbers of a page's headings."""
    file = DOCS / f"{page}.md"
    return set(HEADING.findall(file.read_text("utf-8"))) if file.is_file() else set()


def sources() -> list[Path]:
    """Every file that may cite a page."""
    return [file for room in ROOMS for kind in ("*.py", "*.md") for file in sorted((ROOT / room).rglob(kind))]


def test_a_citation_is_seen_in_every_form():
    assert citations("(teacher.md 1, 2) and decoder.md 2.3 step 3; decoder.md section 13, training.md 13.7, and") == [
        ("teacher", "1"), ("teacher", "2"), ("decoder", "2.3"), ("decoder", "13"), ("training", "13.7"),
    ]  # fmt: skip
    assert citations("decoder.md 10: 35.7 TFLOP") == [("decoder", "10")]
    assert citations("see README.md, 12 files") == [("README", "12")]


def test_every_citation_of_the_code_is_a_heading():
    own = Path(__file__).resolve()
    cited = [(file, *found) for file in sources() if file != own for found in citations(file.read_text("utf-8"))]
    missing = [f"{file.relative_to(ROOT)}: {page}.md {n}" for file, page, n in cited if n not in headings(page)]
    assert not missing
    assert len(cited) > 50
    assert {page for _, page, _ in cited} >= {"teacher", "decoder", "training", "graph"}


def test_the_code_names_no_page_that_is_not_there():
    pages = {file.name for file in ROOT.rglob("*.md") if ".venv" not in file.parts}
    shipped = [file for room in ROOMS[:3] for file in sorted((ROOT / room).rglob("*.py"))]
    named = {(file, name) for file in shipped for name in re.findall(r"[\w-]+\.md\b", file.read_text("utf-8"))}
    made = {"evaluation.md", "report.md"}  # by what runs
    assert not [(file.name, name) for file, name in named if name not in pages | made]


def anchors(text: str) -> set[str]:
    """What GitHub calls a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for place, anchor in LINK.findall(page.read_text("utf-8")):
        target = page.parent / place if place else page
        assert target.exists(), place
        assert not anchor or anchor in anchors(target.read_text("utf-8")), anchor


def spelled(name: str) -> list[str]:
    """``a/{b,c}.py`` as two names."""
    parts = [part.strip("{}").split(",") for part in re.findall(r"\{[^}]*\}|[^{]+", name)]
    return ["".join(words) for words in product(*parts)]


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_are_there(page):
    told = re.findall(r"`((?:[\w.{},*-]+/)*[\w.{},*-]+(?:\.py|\.json|/))`", page.read_text("utf-8"))
    named = [name for pattern in told for name in spelled(pattern) if "<" not in name and "/" in name]
    assert not [n for n in named if not any([*ROOT.glob(n), *(ROOT / "comfyui_lyra").glob(n)])]


def test_the_map_names_every_room():
    text = (DOCS / "architecture.md").read_text("utf-8")
    rooms = {file.parent.name for file in (ROOT / "comfyui_lyra").glob("*/__init__.py") if len(list_code(file.parent))}
    assert not [room for room in rooms if not re.search(rf"\b{room}/", text)]


def list_code(room: Path) -> list[Path]:
    """The files of a room that hold code."""
    return [file for file in room.rglob("*.py") if file.name != "__init__.py"]


def test_a_log_entry_has_a_date():
    entries = re.findall(r"^## (.+)$", (ROOT / "dev" / "LOG.md").read_text("utf-8"), re.M)
    assert entries and all(re.match(r"20\d\d-\d\d-\d\d", entry) for entry in entries)
    assert entries == sorted(entries, key=lambda entry: entry[:10], reverse=True)


def steps(workflow: Path) -> list[tuple[str, str]]:
    """(name, command) of every step of a workflow that runs one."""
    text = workflow.read_text("utf-8")
    return re.findall(r"- name: (.+)\n(?: +(?!run:)(?!- ).+\n)*? +run: (.+)", text)


def test_workflows_run_the_readmes_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(command in readme for command in COMMANDS)
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    found = [step for workflow in workflows for step in steps(workflow)]
    assert {command for name, command in found if not name.startswith("Install")} == {*COMMANDS, "bash .ci/run"}
    assert sum(len(re.findall(r"^ +run: ", file.read_text("utf-8"), re.M)) for file in workflows) == len(found)


def test_workflows_cover_what_is_promised():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    for system in ("ubuntu-latest", "windows-latest", "macos-latest"):
        assert system in text
    for python in ("3.10", "3.11", "3.12", "3.13"):
        assert f'"{python}"' in text


def test_an_issue_asks_for_the_report_of_lyra_check():
    assert "lyra check" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text("utf-8")


def test_the_citation_names_the_packs_version_and_the_paper():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[1]
    assert re.search(r"^version: (.+)$", text, re.M)[1] == version
    assert "2509.19296" in text


def test_times_of_the_readme_are_those_of_the_record():
    section = (ROOT / "README.md").read_text("utf-8").split("## Memory and speed")[1].split("\n## ")[0]
    record = (ROOT / "dev" / "benchmarks.md").read_text("utf-8").splitlines()
    rows = re.findall(r"^\| (.+) \| (.*)\| (.*)\| `(lyra bench \w+)` \|$", section, re.M)
    wrong = []
    for what, seconds, memory, command in rows:
        known = " ".join(line for line in record if f"`{command}`" in line)
        told = re.findall(r"\d+\.\d+(?= s\b| GB\b)", f"{what} {seconds} {memory}")
        wrong += [f"{what}: {number}" for number in told if not re.search(rf"(?<![\d.]){number}(?![\d.]*\d)", known)]
    assert len(rows) >= 8 and not wrong
    runs = " ".join(line for line in record if "ComfyUI 0.33, six paths" in line or "--disable-dynamic-vram" in line)
    table = re.findall(r"^\| (?:all|\d+ GiB)\b.*$", section, re.M)
    assert len(table) == 5
    for number in re.findall(r"\d+\.\d+", " ".join(table)):
        assert re.search(rf"(?<![\d.]){number}(?![\d.]*\d)", runs), number
