"""What was measured, where and when, kept in dev/benchmarks.md."""

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ..files.atomic import replacing
from ..versions import pack_version

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "dev" / "benchmarks.md"


def check_record(file: Path) -> None:
    """Raise ValueError where there is no such file to append to, before anything is measured."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file to append to; make it, or name another one")


def append(file: Path, what: str, machine: str, lines: Sequence[str]) -> None:
    """Add a section to a Markdown file: date, command, machine, the pack and its commit, and the table."""
    check_record(file)
    made_by = f"{pack_version()} at {commit(ROOT) or 'no commit that is known'}"
    section = f"## {date.today()}, `lyra bench {what}`\n\n{machine}; pack {made_by}.\n\n" + "\n".join(lines)
    with replacing(file) as temporary:
        temporary.write_text(f"{file.read_text('utf-8').rstrip()}\n\n{section}\n", encoding="utf-8")


def append_json(file: Path, what: str, machine: str, lines: Sequence[str], before: bytes = b"") -> None:
    """Add one line of JSON to what was in a file: date, command, machine, the pack, its commit, rows by column.

    Rows of all tables follow one another, each by its own table's head; sentences between them are notes.
    Called again with more lines it replaces its line, so that a run that is ended leaves what it has measured.
    """
    rows, notes = tables(lines)
    found = {
        "date": str(date.today()), "command": f"lyra bench {what}", "machine": machine, "version": pack_version(),
        "commit": commit(ROOT), "rows": rows, **({"notes": notes} if notes else {}),
    }  # fmt: skip
    with replacing(file) as temporary:
        temporary.write_bytes(before + json.dumps(found).encode() + b"\n")


def tables(lines: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of Markdown tables by column, and the lines that are no table's; a table ends where such a line comes."""
    rows, notes, table = [], [], []
    for line in lines:
        if not line.startswith("|"):
            notes += [line] if line else []
            table = []
            continue
        most = len(table[0]) - 1 if table else -1  # what a kernel complained of, in the last column, may hold a bar
        table.append([cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|", most)])
        if len(table) > 2:  # after its head and the line below
            rows.append(dict(zip(table[0], table[-1], strict=True)))
    return rows, notes


def commit(checkout: Path) -> str:
    """The first seven digits of the commit that is checked out, from git's own files; an empty word if it has none."""
    git = checkout / ".git"
    try:
        if git.is_file():  # of a second work tree
            git = checkout / git.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref: "):
            return head[:7]
        shared = git / (git / "commondir").read_text("utf-8").strip() if (git / "commondir").is_file() else git
        branch = head.removeprefix("ref: ")
        if (shared / branch).is_file():
            return (shared / branch).read_text("utf-8")[:7]
        packed = (shared / "packed-refs").read_text("utf-8")
        found = re.search(rf"^([0-9a-f]{{7}})\S* {re.escape(branch)}$", packed, re.M)
        return found[1] if found else ""
    except OSError:
        return ""
