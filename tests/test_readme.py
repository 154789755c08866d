"""What the README says is there, is there: pictures, nodes, templates, verbs, commands, numbers."""

import json
import re
import shlex
from pathlib import Path

from lyra_pack.comfyui_lyra.cli import parser
from lyra_pack.comfyui_lyra.files.splats.formats import table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "comfyui_lyra" / "mini").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text below a heading of the second level."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(title: str, column: int = 0, table: int = 0) -> list[str]:
    """One column of a table of a section, its heading left out."""
    rows = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)[table].splitlines()[2:]
    return [row.split("|")[column + 1].strip() for row in rows]


def programs() -> list[list[str]]:
    """Every ``lyra`` command of a block of code, as words without the comment."""
    lines = "".join(block for page in PAGES for block in FENCE.findall(page.read_text(encoding="utf-8")))
    commands = lines.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in commands if line.startswith("lyra ")]


def verbs() -> dict:
    """The verbs that ``lyra`` takes, each with its parser."""
    (found,) = [action.choices for action in parser()._actions if action.dest == "verb"]
    return found


def test_the_readme_shows_every_picture_of_assets():
    shown = {link for link in LINK.findall(README) if link.startswith("assets/")}
    assert shown == {path.relative_to(ROOT).as_posix() for path in (ROOT / "assets").iterdir()}


def test_the_nodes_table_names_every_node_and_no_other():
    told = [name.strip() for cell in cells("Nodes", 1) for name in cell.split(",")]
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert sorted(told) == sorted(node["display_name"] for node in texts.values())


def test_the_templates_table_names_every_template_and_no_other():
    told = [name for cell in cells("Templates") for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_templates_that_need_nothing_offer_no_download():
    for row, needs in zip(cells("Templates"), cells("Templates", 1), strict=True):
        template = json.loads((ROOT / "workflows" / f"{row.strip('`')}.json").read_text(encoding="utf-8"))
        offered = any(node["properties"].get("models") for node in template["nodes"])
        assert offered == (needs != "nothing"), row


def test_the_verbs_table_names_every_verb_and_no_other():
    told = [name for cell in cells("Shell") for name in re.findall(r"`([\w-]+)`", cell)]
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
    measured = {line[0]: dict(zip(lines[0], line, strict=False)) for line in lines}
    assert set(cells("Training")) == set(ROWS)
    for column, (name, digits) in enumerate((("psnr", 1), ("psnr_visible", 1), ("psnr_hole", 1), ("ssim", 2)), 1):
        for row, cell in zip(cells("Training"), cells("Training", column), strict=True):
            assert cell.strip("*") == f"{float(measured[ROWS[row]][name].split()[0]):.{digits}f}", (row, name)


def test_measured_times_stand_among_the_benchmarks():
    told = cells("Templates", 3) + cells("Templates", 4)
    told += [cell for column in (1, 2, 3) for cell in cells("Memory and speed", column, table=1)]
    told += cells("Memory and speed", 1, table=2)
    numbers = {number for cell in told for number in re.findall(r"\d+(?:\.\d+)?", cell)}
    assert {"16.2", "86.4", "0.0092"} <= numbers
    assert numbers <= set(re.findall(r"\d+(?:\.\d+)?", (ROOT / "dev" / "benchmarks.md").read_text(encoding="utf-8")))


def test_the_table_of_splat_files_is_the_one_of_the_code():
    for page in (ROOT / "README.md", ROOT / "nodes" / "web" / "docs" / "LyraSaveSplats.md"):
        assert "\n".join(["", *table(), ""]) in page.read_text(encoding="utf-8"), page.name
