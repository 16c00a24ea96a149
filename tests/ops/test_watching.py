"""Metrics, dashboards and rules: a Grafana's API as its documentation shows it, and servers that are none of these.

A real Prometheus is asked in tests/cli/test_check_live.py.
"""

import contextlib
import http.server
import json
import threading

import pytest

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized
from speechpool.monitoring import dashboards
from speechpool.ops.watching import SIGNALS, from_files, from_grafana, rules_of, scraped

METRICS = """\
# TYPE speechpool_pool_max_size gauge
speechpool_pool_max_size{pool="a"} 10.0
speechpool_pool_max_size{pool="b"} 5.0
# TYPE speechpool_quota_limit gauge
speechpool_quota_limit{pool="a",account="host/",model="m"} 3.0
"""


@contextlib.contextmanager
def serving(pages, token=None):
    """A server with some pages; what was asked stands in `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if token is not None and self.headers["Authorization"] not in {f"Bearer {token}", f"Basic {token}"}:
                self.send_error(401)
                return
            if self.path not in pages:
                self.send_error(404)
                return
            page = pages[self.path]
            body = (page if isinstance(page, str) else json.dumps(page)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ------------------------------------------------------------------------------------ metrics
def test_sizes_of_several_processes_are_added_up():
    with serving({"/metrics": METRICS}) as one, serving({"/app/metrics": METRICS}) as two:
        metrics = scraped([one, f"{two}/app/metrics"])
    assert metrics.max_size == {"a": 20.0, "b": 10.0}
    assert metrics.quota == {"host/ m": 6.0}
    assert len(metrics.places) == 2


def test_what_shows_no_metrics():
    with serving({"/metrics": "<html>no</html>"}) as url, pytest.raises(ConnectFailed, match="shows no metrics"):
        scraped([url])
    with serving({}) as url, pytest.raises(ConnectFailed, match="/metrics with HTTP 404"):
        scraped([url])
    with pytest.raises(ConnectFailed, match="does not answer"):
        scraped([url])
    with pytest.raises(SettingsError, match="is no URL"):
        scraped(["ftp://example"])


# ------------------------------------------------------------------------------------ dashboards
def test_our_own_dashboard_shows_all_signals(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "board.json").write_text(dashboards.written())
    (tmp_path / "other.json").write_text('{"panels": [{"targets": [{"expr": "up"}]}]}')
    (tmp_path / "provider.json").write_text('{"apiVersion": 1}')
    found = from_files(tmp_path)
    assert (found.count, dict(found.shown)) == (2, dict.fromkeys(SIGNALS, "board.json"))


def test_recording_rules_count_and_titles_do_not(tmp_path):
    board = {"title": "speechpool_tasks_total", "panels": [{"targets": [{"expr": "speechpool:pool_utilisation:5m"}]}]}
    (tmp_path / "board.json").write_text(json.dumps(board))
    assert from_files(tmp_path).shown == {"pool utilisation": "board.json"}


def test_folders_that_are_of_no_use(tmp_path):
    with pytest.raises(SettingsError, match="is no folder"):
        from_files(tmp_path / "nowhere")
    (tmp_path / "board.json").write_text("{")
    with pytest.raises(SettingsError, match="cannot be read as JSON"):
        from_files(tmp_path)


def test_a_grafana_is_asked_for_all_of_its_dashboards():
    pages = {
        "/g/api/search?type=dash-db&limit=500": [{"uid": "one"}, {"uid": "two"}],
        "/g/api/dashboards/uid/one": {"dashboard": {"title": "Other", "panels": []}},
        "/g/api/dashboards/uid/two": {"dashboard": json.loads(dashboards.written())},
    }
    with serving(pages, token="t") as url:
        found = from_grafana(f"{url}/g/", "t")
        with pytest.raises(Unauthorized, match="GRAFANA_TOKEN"):
            from_grafana(f"{url}/g/", None)
    assert (found.count, dict(found.shown)) == (2, dict.fromkeys(SIGNALS, "speechpool"))


def test_a_password_is_sent_as_one_and_never_shown():
    pages = {"/metrics": METRICS}
    with serving(pages, token="dXNlcjpwQHNz") as url:  # user:p@ss
        place = url.removeprefix("http://")
        assert scraped([f"http://user:p%40ss@{place}"]).places == [place]
        with pytest.raises(Unauthorized, match="lets nobody in") as caught:
            scraped([f"http://user:secret@{place}"])
    assert "secret" not in str(caught.value)
    for wrong in ("http://user:secret@host:port", "ftp://user:secret@host"):
        with pytest.raises(SettingsError, match="is no URL") as caught:
            scraped([wrong])
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("page", [{"message": "no"}, [{"id": 1}], "no JSON", 7])
def test_what_is_no_grafana_and_no_prometheus(page):
    with serving({"/api/search?type=dash-db&limit=500": page, "/api/v1/rules": page}) as url:
        with pytest.raises(ConnectFailed, match="is no Grafana"):
            from_grafana(url, None)
        with pytest.raises(ConnectFailed, match="is no Prometheus"):
            rules_of(url)
