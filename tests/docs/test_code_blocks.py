"""Every block of code on a page does what the page says; pages.py tells how a page may say more about one."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
import yaml
from command_lines import check, check_names, commands, transcript
from pages import ROOT, blocks, mentions, pages

LANGUAGES = {"python", "sh", "console", "dockerfile", "toml", "yaml", "json", "promql", "text", "setup"}
PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
NOT_RUN = 0
"""How many blocks nobody runs."""
LIMIT = 60


def of(*languages):
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPEECHPOOL_", "DASHSCOPE_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "COLUMNS": "100", "DASHSCOPE_API_KEY": "local"} | more


@pytest.fixture(scope="module")
def port():
    """Of a service that speaks as fast as it can."""
    with serving("unpaced") as port:
        yield port


@pytest.fixture
def healthy_port():
    """Of a service with the delays that readers see."""
    with serving("healthy") as port:
        yield port


@contextmanager
def serving(profile):
    command = [sys.executable, "-m", "speechpool", "service", "--port", "0", "--json", "--submission-rate", "none"]
    command += ["--engine", "replay", "--profile", profile, "--max-first-audio", "none"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as it:
        try:
            yield str(json.loads(it.stdout.readline())["port"])
        finally:
            it.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.page == page and b.language == "python" for b in BLOCKS)]
)
def test_python(page, port, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("run_page.py"), page, port],
        cwd=tmp_path,
        env=environment(PYTHONFAULTHANDLER="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


@pytest.mark.parametrize("block", of("sh", "console", "dockerfile"))
def test_commands_exist_with_their_options(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = commands(block)
    assert found, block.place
    for words in found:
        check(words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_mentioned_exist(page):
    for code in mentions(page):
        if code.startswith("speechpool "):
            check_names([word for word in shlex.split(code)[1:] if word not in {"--help", "-h"}])


@pytest.mark.slow
@pytest.mark.parametrize("block", of("console"))
def test_transcripts_are_true(block, request, tmp_path):
    slow = block.wish("slow") is not None
    port = request.getfixturevalue("healthy_port" if slow else "port")
    for command, printed in transcript(block):
        done = subprocess.run(
            command.replace("8765", port),
            shell=True,
            cwd=tmp_path,
            env=environment(SPEECHPOOL_ENDPOINT__URL=f"ws://127.0.0.1:{port}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=110 if slow else LIMIT,
        )
        expected, seen = plain(printed), plain(done.stdout + done.stderr).replace(port, "8765")
        if block.wish("numbers differ") is not None:
            expected, seen = without_numbers(expected), without_numbers(seen)
        pattern = ".*".join(re.escape(part) for part in expected.split("..."))
        assert re.fullmatch(pattern, seen, re.DOTALL), f"{command}\n{done.stdout}{done.stderr}"


def plain(text):
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def without_numbers(text):
    return re.sub(r" +", " ", re.sub(r"\d[\d.,]*", "0", text))


@pytest.mark.parametrize("block", of("toml"))
def test_settings_files_are_right(block, tmp_path):
    assert tomllib.loads(block.code)
    tmp_path.joinpath("speechpool.toml").write_text(block.code)
    command = [sys.executable, "-m", "speechpool", "config", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("promql"))
def test_queries_name_metrics_that_exist(block):
    catalogue = set(re.findall(r"`(speechpool_\w+)`", (ROOT / "docs/monitoring.md").read_text()))
    named = re.findall(r"speechpool_\w+", block.code)
    assert named
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= catalogue


@pytest.mark.parametrize("block", of("yaml", "json"))
def test_data_can_be_read(block):
    assert [*yaml.safe_load_all(block.code)]


def test_every_block_has_a_language_that_is_tested():
    unknown = [f"{block.place}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES]
    assert not unknown, "a block of another language would be tested by nobody; a picture is `text`"


def test_files_that_a_page_includes_have_tests_of_their_own():
    included = [re.findall(r'^--8<-- "(.+)"$', (ROOT / page).read_text(), re.MULTILINE) for page in PAGES]
    for name in chain.from_iterable(included):
        tests = [test for test in ROOT.glob("tests/*/test_*.py") if Path(name).name in test.read_text()]
        assert tests, name


def test_few_blocks_are_not_run_and_each_says_why():
    left_out = [(block.place, block.wish("not run")) for block in BLOCKS if block.wish("not run") is not None]
    assert len(left_out) <= NOT_RUN, left_out
    assert all(reason for _, reason in left_out)


def test_who_is_said_to_run_a_block_does():
    for block in BLOCKS:
        if said := block.wish("run by"):
            test, _, reason = said.partition(", ")
            assert Path(block.page).name in (ROOT / test).read_text(), block.place
            assert reason, block.place


def test_no_wish_is_misspelt():
    known = ("slow", "numbers differ", "run by ", "not run, ")
    assert not [(block.place, wish) for block in BLOCKS for wish in block.wishes if not wish.startswith(known)]
