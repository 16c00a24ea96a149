"""The site as `make docs` builds it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import speechpool

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)  # highlighting some hundred files of tests takes its time on a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_named_test_is_a_link_to_its_line(site):
    page = site.joinpath("reliability.html").read_text()
    name = "test_d17_a_dropped_socket_wakes_the_waiter"
    url, anchor = re.search(rf'href="([^"#]+)#([^"]+)"><code>{name}<', page).groups()
    code = site.joinpath(url).read_text()
    line = code[code.index(f'id="{anchor}"') :].partition("\n")[0]
    assert name in line


@pytest.mark.slow
def test_what_is_for_the_tests_only_is_not_on_the_site(site):
    pages = [page for page in site.rglob("*.html") if "source" not in page.parts]
    assert len(pages) > 20
    for page in pages:
        assert not re.search(r"<!-- (setup|block:)", page.read_text()), page


@pytest.mark.slow
def test_every_verb_is_in_the_reference(site):
    page = site.joinpath("reference/command_line.html").read_text()
    verbs = set(re.findall(r'<h2 id="speechpool-([\w-]+)"', page))
    assert {"demo", "say", "service", "load", "size", "dashboard-export"} <= verbs
    assert "--submission-rate" in page
    assert "interrupted (Ctrl-C)" in page  # the exit codes


@pytest.mark.slow
def test_no_page_asks_anybody_else_for_anything(site):
    for page in site.rglob("*.html"):
        assert not re.search(r'<(?:script|img|iframe|link)\b[^>]*(?:src|href)="(?:https?:)?//', page.read_text()), page


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    named = set(re.findall(r"^::: speechpool\.(\w+)$", pages, re.MULTILINE))
    named |= set(speechpool.errors.__all__) if "::: speechpool.errors" in pages else set()
    assert not set(speechpool.__all__) - named


def test_the_page_on_the_official_pool_proves_each_of_its_34_defects():
    claimed = re.findall(r"test_defects\.py::test_d(\d\d)_", (ROOT / "docs/why.md").read_text())
    assert {int(number) for number in claimed} == set(range(1, 35))


def test_every_named_file_and_test_exists():
    for page in ROOT.glob("docs/**/*.md"):
        for name, test in re.findall(r"`((?:tests|examples|benchmarks)/[\w./-]+\.\w+)(?:::(\w+))?`", page.read_text()):
            assert (ROOT / name).is_file(), (page.name, name)
            assert not test or re.search(rf"\b{test}\b", (ROOT / name).read_text()), (page.name, name, test)
