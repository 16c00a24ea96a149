"""A real Prometheus as a child process, for the slow tests that ask it."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from urllib.parse import quote

import pytest

LIMIT = 60.0


class Prometheus:
    def __init__(self, folder, targets=(), rules=""):
        program = shutil.which("prometheus")
        if program is None:
            assert not os.environ.get("CI"), "prometheus is missing: make tools"
            pytest.skip("needs prometheus: make tools")
        (folder / "rules.yml").write_text(rules)
        scrape = {"job_name": "speechpool", "static_configs": [{"targets": list(targets)}]}
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "scrape_configs": [scrape], "rule_files": [str(folder / "rules.yml")]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._child = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.terminate()
        self._child.wait(20)

    def ask(self, expression):
        """The samples of an expression: labels and value."""
        try:
            with self._open(f"{self.url}/api/v1/query?query={quote(expression)}", timeout=10) as answer:
                told = json.load(answer)
        except OSError:
            return []  # not up yet
        assert told["status"] == "success", (expression, told)
        return [(one["metric"], float(one["value"][1])) for one in told["data"]["result"]]

    def wait(self, expression, met):
        end = time.monotonic() + LIMIT
        while not met(found := self.ask(expression)):
            assert time.monotonic() < end, (expression, found)
            time.sleep(0.3)
        return found
