"""The fenced blocks of a page, as ``test_pages`` runs them.

What a block is follows from its language, and from two marks that readers of the built page do not see or do not mind:

- a title (``toml title="recipe.toml"``) makes a file of the block, in the folder where the page's commands run;
- a comment before it, ``<!-- not run: why -->``, has it checked as far as that goes without running it.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<why>[^\n]+) -->\n\n?)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)(?:[ ]+title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block. ``line`` is where its fence stands, ``why`` is why it is not run (none: it is)."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    why: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of each command of a block of shell, comments left out."""
        for line in _join_lines(self.text):
            if words := shlex.split(line, comments=True):
                yield words


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["title"],
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            match["why"],
        )
        for match in _BLOCK.finditer(text)
    ]


def _join_lines(text: str) -> Iterator[str]:
    """Yield whole commands: lines that end in a backslash, or within quotes, go on."""
    waiting = ""
    for line in text.replace("\\\n", " ").splitlines():
        waiting += line + "\n"
        if _is_whole(waiting):
            yield waiting
            waiting = ""
    if waiting.strip():
        raise ValueError(f"a quote that nothing closes: {waiting}")


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
