"""The blocks of code on a page, and what a comment of HTML before one says about it.

    <!-- setup ... -->                        Python that this page takes for granted; run in its place, never shown
    <!-- block: slow -->                      the next block takes seconds
    <!-- block: numbers differ -->            what the next transcript prints has other numbers each time
    <!-- block: run by tests/X.py, REASON --> another test runs it
    <!-- block: not run, REASON -->           nobody does

Wishes are separated by a semicolon. Indented code, which has no language, counts as commands.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

__all__ = ["ROOT", "Block", "blocks", "mentions", "pages"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    """Of the first line of the code, from 0."""
    language: str
    code: str
    wishes: tuple[str, ...] = field(default=())

    @property
    def place(self):
        return f"{self.page}:{self.line + 1}"

    def wish(self, start):
        """Return what follows such a wish; None where there is none."""
        return next((wish.removeprefix(start).strip(" ,") for wish in self.wishes if wish.startswith(start)), None)


def pages():
    return ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]


def blocks(page):
    found, wishes = [], ()
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        if token.type in {"fence", "code_block"}:
            fenced = token.type == "fence"
            if fenced and token.content.startswith("--8<--"):
                continue  # a whole file, which has tests of its own
            language = token.info.split()[0] if token.info.strip() else "" if fenced else "sh"
            found.append(Block(page, token.map[0] + fenced, language, token.content, wishes))
            wishes = ()
        elif token.type == "html_block" and (comment := re.match(r"<!-- block: (.*?) -->", token.content, re.DOTALL)):
            wishes = tuple(" ".join(wish.split()) for wish in comment[1].split(";"))
        elif token.type == "html_block" and (comment := re.match(r"<!-- setup\n(.*?)-->", token.content, re.DOTALL)):
            found.append(Block(page, token.map[0] + 1, "setup", comment[1]))
    return found


def mentions(page):
    """Return what stands in the sentences of a page as code."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text())
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    return [child.content for child in inline if child.type == "code_inline"]
