"""`speechpool monitor`, `top` and `dashboard export`, against monitors that run."""

import asyncio
import contextlib
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "monitoring"))

from commands import error_line, run, run_here, started
from monitored import KEY, get, parsed, pool_with_traffic

from speechpool import monitoring
from speechpool.monitoring import dashboards, rules


@contextlib.contextmanager
def monitors(*names, token=None):
    """Pools with some traffic behind them, each on a monitor, in a thread of their own."""
    ready, done, urls = threading.Event(), threading.Event(), []

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for name in names:
                pool = await stack.enter_async_context(pool_with_traffic(4, (), name=name))
                urls.append(stack.enter_context(monitoring.serve(pool, 0, token=token)).url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield urls
    finally:
        done.set()
        thread.join()


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    return lambda *arguments: run_here(monkeypatch, capsys, tmp_path, *arguments)


# ------------------------------------------------------------------------------------------ top
def test_top_shows_the_signals_once_where_there_is_no_terminal(here):
    with monitors("first") as (url,):
        done = here("top", url)
        told = here("top", url, "--json", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "first →" in done.stdout
    for signal_name in (
        "first packet delay",
        "end-to-end latency",
        "error rate",
        "pool utilisation",
        "connection reuse",
    ):
        assert signal_name in done.stdout
    assert "100 % (4 of 4)" in done.stdout
    assert "Nobody waits." in done.stdout
    assert KEY not in done.stdout
    (pool,) = json.loads(told.stdout)["pools"]
    assert pool["stats"]["borrows"] == 4


def test_top_says_what_is_wrong(here):
    with monitors("first", token="secret") as (url,):
        assert "wants its token" in error_line(here("top", url.partition("?")[0]), 4)
        assert here("top", url).returncode == 0
    assert "Is it running?" in error_line(here("top", url), 3)
    assert "is no URL of a monitor" in error_line(here("top", "ftp://somewhere"), 2)


# ------------------------------------------------------------------------------------------ monitor
def test_monitor_shows_several_on_one_page_until_ctrl_c(tmp_path):
    with (
        monitors("a", "b") as urls,
        started("monitor", *urls, "--port", "0", cwd=tmp_path, stdout=subprocess.PIPE) as child,
    ):
        line = child.stdout.readline().decode()
        page = re.search(r"http://\S+", line.rpartition(": ")[2])[0]
        pools = parsed(get(f"{page}snapshot.json")[2])
        assert [pool["pool"].partition(" @ ")[0] for pool in pools] == ["a", "b"]
        assert "page/page.js" in get(page)[2]
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130


def test_monitor_needs_one_that_answers(here):
    assert "Is it running?" in error_line(here("monitor", "http://127.0.0.1:1/"), 3)


def test_a_remote_that_is_something_else_is_said(here):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = here("top", f"http://127.0.0.1:{server.server_port}/")
        thread.join()
    assert "is no monitor of this version" in error_line(done, 3)


# ------------------------------------------------------------------------------------------ dashboard
def test_dashboard_export_writes_everything(here, tmp_path):
    done = here("dashboard", "export", "a/b", "--json")
    written = json.loads(done.stdout)["written"]
    assert [Path(file).name for file in written] == [
        "speechpool-dashboard.json", "speechpool-rules.yml", "prometheus-scrape.yml", "grafana-provisioning.yml"
    ]  # fmt: skip
    assert (tmp_path / "a/b/speechpool-rules.yml").read_text() == rules.written()
    assert (tmp_path / "a/b/speechpool-dashboard.json").read_text() == dashboards.written()
    (tmp_path / "file").write_text("")
    assert "choose another folder" in error_line(run("dashboard", "export", "file/x", cwd=tmp_path), 7)
