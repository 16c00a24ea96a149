"""A hook of MkDocs: files of the repository that a page names become pages, too.

`` `tests/pool/test_engine.py::test_t21_nobody_spins` `` becomes a link to that line, so that a claim leads to its
proof on the site as in a checkout. A name that does not exist is a warning, which ends a strict build. What is only for
tests/docs (comments that begin with `setup` or `block:`) is left out of the site.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
NAMED: Final = re.compile(r"`((?:tests|examples|benchmarks)/[\w./-]+\.(?:py|yaml))(?:::(\w+))?`")
FOR_TESTS: Final = re.compile(r"<!-- (?:setup\b|block:).*?-->\n?", re.DOTALL)
log = logging.getLogger("mkdocs.hooks.sources")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that some page names, and the changelog."""
    changes = (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changes))
    named = {match[1] for page in files.documentation_pages() for match in NAMED.finditer(page.content_string)}
    for name in sorted(named):
        file = ROOT / name
        if file.is_file():  # else the page that names it warns
            kind = "yaml" if file.suffix == ".yaml" else "python"
            text = f'---\nsearch:\n  exclude: true\n---\n# {name}\n\n````{kind} linenums="1"\n{file.read_text()}````\n'
            files.append(File.generated(config, f"source/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn each such name into a link."""
    if page.file.src_uri.startswith("source/"):
        return markdown

    def link(match: re.Match[str]) -> str:
        name, test = match[1], match[2]
        target = files.get_file_from_path(f"source/{name}.md")
        line = _line(ROOT / name, test) if target else None
        if target is None or line is None:
            log.warning("%s names %s, which does not exist", page.file.src_uri, match[0])
            return match[0]
        url = get_relative_url(target.url, page.url)
        return f'<a href="{url}#__codelineno-0-{line}"><code>{test or name}</code></a>'

    return NAMED.sub(link, FOR_TESTS.sub("", markdown))


def _line(file: Path, name: str | None) -> int | None:
    """Return the line where a name is defined; 1 for the file itself."""
    if name is None:
        return 1
    defined = re.compile(rf"\s*(?:(?:async )?def|class) {name}\b|{name} = ")
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if defined.match(line):
            return number
    return None
