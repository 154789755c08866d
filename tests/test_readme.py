"""What the README says is there, is there: links, pictures, nodes, templates, verbs and commands."""

import json
import re
import shlex
from pathlib import Path

import pytest
from lyra_pack.comfyui_lyra.cli import parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "comfyui_lyra" / "mini").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text below a heading of the second level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str, column: int = 0) -> list[str]:
    """One column of the first table of a section, its heading left out."""
    rows = re.search(r"(?:^\|.*\n)+", section(title), re.MULTILINE)[0].splitlines()[2:]
    return [row.split("|")[column + 1].strip() for row in rows]


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page's text to files or headings that are not there."""
    missing = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.startswith(("https://", "http://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    return missing


def programs() -> list[list[str]]:
    """Every ``lyra`` command of a block of code, as words without the comment."""
    lines = "".join(block for page in PAGES for block in FENCE.findall(page.read_text(encoding="utf-8")))
    commands = lines.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in commands if line.startswith("lyra ")]


def verbs() -> dict:
    """The verbs that ``lyra`` takes, each with its parser."""
    (found,) = [action.choices for action in parser()._actions if action.dest == "verb"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_are_there(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_seen():
    page = ROOT / "README.md"
    assert broken(page, "[a](no/such.md) [b](#no-such-heading) [c](LICENSE) [d](#install)") == [
        "no/such.md",
        "#no-such-heading",
    ]


def test_the_readme_shows_every_picture_of_assets():
    shown = {link for link in LINK.findall(README) if link.startswith("assets/")}
    assert shown == {path.relative_to(ROOT).as_posix() for path in (ROOT / "assets").iterdir()}


def test_the_nodes_table_names_every_node_and_no_other():
    told = [name.strip() for cell in first_cells("Nodes", 1) for name in cell.split(",")]
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert sorted(told) == sorted(node["display_name"] for node in texts.values())


def test_the_templates_table_names_every_template_and_no_other():
    told = [name for cell in first_cells("Templates") for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_templates_that_need_nothing_offer_no_download():
    for row, needs in zip(first_cells("Templates"), first_cells("Templates", 1), strict=True):
        template = json.loads((ROOT / "workflows" / f"{row.strip('`')}.json").read_text(encoding="utf-8"))
        offered = any(node["properties"].get("models") for node in template["nodes"])
        assert offered == (needs != "nothing"), row


def test_the_verbs_table_names_every_verb_and_no_other():
    told = [name for cell in first_cells("Shell") for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(told) == sorted(verbs())


def test_commands_of_the_pages_are_taken():
    assert len(programs()) > 10
    for words in programs():
        assert parser().parse_args(words).verb == words[0]


def test_inline_commands_name_verbs_and_options_that_exist():
    found = re.findall(r"`lyra ([\w-]+)([^`]*)`", FENCE.sub("", README))
    assert found
    for verb, rest in found:
        assert verb in verbs() or verb == "--help"
        for option in re.findall(r"--[\w-]+", rest):
            assert option in verbs()[verb].format_help(), (verb, option)


def test_it_is_said_early_that_released_weights_were_not_run():
    assert "**The released weights have not been run here**" in README.split("\n## ")[0]


def test_versions_are_those_of_pyproject():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    comfyui = re.search(r'requires-comfyui = ">=(\d+\.\d+)', project)[1]
    python = re.search(r'requires-python = ">=(\d+\.\d+)', project)[1]
    assert f"ComfyUI {comfyui} or newer, Python {python} or newer" in section("Install")


ROWS = {  # of the README's table of training: as the evaluation calls them
    "the true video through the tokenizer": "a tokenizer",
    "teacher": "b teacher",
    "first picture warped, holes in the mean colour": "c warp, holes mean",
    "a splat for each pixel of the first picture": "d depth splats",
    "**splat decoder, six paths**": "e student",
    "splat decoder, one path": "g 1 views",
}


def test_the_training_table_is_the_evaluation_s():
    page = (ROOT / "comfyui_lyra" / "mini" / "evaluation.md").read_text(encoding="utf-8")
    table = page.split("### static, large paths")[1].split("###")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    measured = {cells[0]: dict(zip(lines[0], cells, strict=False)) for cells in lines}
    assert set(first_cells("Training")) == set(ROWS)
    for column, (name, digits) in enumerate((("psnr", 1), ("psnr_visible", 1), ("psnr_hole", 1), ("ssim", 2)), 1):
        for row, cell in zip(first_cells("Training"), first_cells("Training", column), strict=True):
            assert cell.strip("*") == f"{float(measured[ROWS[row]][name].split()[0]):.{digits}f}", (row, name)
