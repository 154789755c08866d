"""What the checks found, as Markdown that a person can read, and paste where they ask for help."""

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[str], None]  # is told what is about to be done, in a line


def tell_nobody(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    works: bool | None = None  # None: told, not judged
    wanted: str = ""  # what it was judged by, or what to do

    @property
    def mark(self) -> str:
        """How the report shows it."""
        return {True: "ok", False: "**FAILS**", None: ""}[self.works]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What was found of one matter."""

    title: str
    findings: tuple[Finding, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that was looked at."""

    sections: tuple[Section, ...]

    @property
    def failing(self) -> tuple[Finding, ...]:
        """What does not work."""
        return tuple(finding for section in self.sections for finding in section.findings if finding.works is False)

    @property
    def works(self) -> bool:
        """Whether nothing failed, and something was judged."""
        return not self.failing and any(f.works for section in self.sections for f in section.findings)

    @property
    def verdict(self) -> str:
        """All in one line."""
        judged = sum(finding.works is not None for section in self.sections for finding in section.findings)
        if self.works:
            return f"**All works**: {judged} checks passed."
        if not self.failing:
            return "**Nothing fails**: nothing was checked that could."
        names = "; ".join(finding.name for finding in self.failing)
        return f"**It will not all work**: {len(self.failing)} of {judged} checks failed: {cell(names)}."

    def __str__(self) -> str:
        return "\n\n".join(["# Lyra: check of the setup", self.verdict, *map(table, self.sections)]) + "\n"


def table(section: Section) -> str:
    """A section as a Markdown table."""
    lines = [f"## {section.title}", *([section.note] if section.note else [])]
    rows = ["| | what | found | wanted |", "|---|---|---|---|"]
    rows += [f"| {f.mark} | {cell(f.name)} | {cell(f.found)} | {cell(f.wanted)} |" for f in section.findings]
    return "\n\n".join([*lines, "\n".join(rows)])


def cell(text: str) -> str:
    """Text on one line, in a table's cell."""
    return " ".join(text.replace("|", "\\|").split())
