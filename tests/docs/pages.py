"""Reading the pages of the documentation: their code, their tables, their links. What they say is checked beside this."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.processes import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (
        *REPOSITORY.glob("*.md"),
        REPOSITORY / "data/README.md",
        *(REPOSITORY / "findings").rglob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
    )
)
SHELL = ("", "bash", "sh", "console")
FENCE = re.compile(r"^ {0,3}```(\w*)\s*$")
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^(#+) (.+?)\s*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code: fenced, with its language, or indented (language "")."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a page, continued lines joined and comments left out."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text()


def blocks(page: str) -> list[Block]:
    """The blocks of code of a page, in order. An indented one begins after an empty line."""
    found: list[Block] = []
    lines = text_of(page).splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        is_indented = lines[number].startswith("    ") and (number == 0 or not lines[number - 1].strip())
        end = number
        if fence:
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            found.append(Block(page, number + 2, fence[1], "\n".join(lines[number + 1 : end])))
        elif is_indented:
            while end + 1 < len(lines) and (lines[end + 1].startswith("    ") or not lines[end + 1].strip()):
                end += 1
            text = "\n".join(line.removeprefix("    ") for line in lines[number : end + 1]).rstrip()
            found.append(Block(page, number + 1, "", text))
        number = end + 1
    return found


def fenced(page: str, language: str) -> list[str]:
    return [block.text for block in blocks(page) if block.language == language]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of shell: a line each, unless a quote or a backslash carries it on."""
    pending, begins = "", block.line
    for offset, line in enumerate(block.text.splitlines()):
        if not pending:
            begins = block.line + offset
        pending = f"{pending}\n{line}" if pending else line.strip()
        if pending.endswith("\\") or not _is_whole(pending):
            continue
        if shlex.split(pending, comments=True):
            yield Command(block.page, begins, pending)
        pending = ""
    assert not pending, f"{block.page}:{begins}: a quote is not closed: {pending}"


def inline_commands(page: str, programs: tuple[str, ...]) -> Iterator[Command]:
    """Commands within sentences, `like this`, of these programs."""
    is_code = False
    for number, line in enumerate(text_of(page).splitlines(), 1):
        is_code ^= bool(FENCE.match(line))
        if is_code or line.startswith("    "):
            continue
        for code in INLINE.findall(line):
            if code.split()[0] in programs and len(code.split()) > 1:
                yield Command(page, number, code)


def table(page: str, first_heading: str) -> list[list[str]]:
    """The rows of the table whose first column is headed so.

    Raises:
        LookupError: if the page has no such table.
    """
    lines = text_of(page).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and cells(line)[0] == first_heading:
            return list(_rows(lines[number + 2 :]))
    raise LookupError(f"{page} has no table headed {first_heading!r}")


def tables_by_heading(page: str) -> dict[str, list[list[str]]]:
    """The first table under each heading of the page, without its head."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    lines = text_of(page).splitlines()
    for number, line in enumerate(lines):
        if match := HEADING.match(line):
            heading = match[2]
        elif line.startswith("| ---") and heading not in found:
            found[heading] = list(_rows(lines[number + 1 :]))
    return found


def _rows(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield cells(line)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def codes(text: str) -> list[str]:
    """What stands in backquotes."""
    return INLINE.findall(text)


def anchors(page: str) -> set[str]:
    """The names under which GitHub shows the headings of a page."""
    headings = (HEADING.match(line) for line in text_of(page).splitlines())
    return {anchor(match[2]) for match in headings if match}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: str) -> Iterator[str]:
    """Where the page's links and pictures lead, code left out."""
    is_code = False
    for line in text_of(page).splitlines():
        is_code ^= bool(FENCE.match(line))
        if not is_code and not line.startswith("    "):
            yield from (
                first or second for first, second in LINK.findall(INLINE.sub("", line) if "](" not in line else line)
            )


def resolved(page: str, link: str) -> Path:
    return (REPOSITORY / page).parent / link.partition("#")[0] if not link.startswith("#") else REPOSITORY / page


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
