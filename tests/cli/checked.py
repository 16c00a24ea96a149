"""A deployment to check: a TLS service with a key, a pool that shows its metrics, a program, dashboards, a load test."""

import contextlib
import json
import ssl
from urllib.parse import urlsplit

import trustme
from commands import Serving, run, run_here

from speechpool import Endpoint, SpeechPool, monitoring
from speechpool.monitoring import dashboards

KEY = "sk-0123456789abcdef0123456789abcdef"
SIZE, PEAK, TASK_SECONDS = 10, 6, 0.1
PROGRAM = """\
import asyncio
import signal

from speechpool import AsyncSpeechPool, Endpoint, PoolSettings


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncSpeechPool(Endpoint("wss://localhost"), settings=PoolSettings.load()) as pool:
        await stop.wait()


asyncio.run(main())
"""


@contextlib.contextmanager
def deployment(folder):
    """Everything runs, and everything is in order."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trusting = ssl.create_default_context(cafile=folder / "ca.pem")
    with Serving("marker", ssl=served, api_key=KEY) as service:
        endpoint = Endpoint(f"wss://localhost:{service.port}", api_key=KEY, ssl=trusting)
        (folder / "program").mkdir()
        (folder / "program" / "main.py").write_text(PROGRAM)
        (folder / "dashboards").mkdir()
        (folder / "dashboards" / "speechpool.json").write_text(dashboards.written())
        load_test(folder, urlsplit(endpoint.url).netloc)
        with SpeechPool(endpoint, max_size=SIZE) as pool, monitoring.serve(pool, 0) as monitor:
            (folder / "speechpool.toml").write_text(settings(endpoint.url, monitor.url))
            yield service


def settings(url, metrics):
    return f"""\
[endpoint]
url = "{url}"
tls_ca = "ca.pem"

[pool]
max_size = {SIZE}
idle_timeout = 0.2

[check]
peak = {PEAK}
task_seconds = {TASK_SECONDS}
submission_rate = 200
watch_idle = 0.3
source = "program"
load_report = "load.json"
metrics = ["{metrics}"]
dashboards = "dashboards"
"""


def load_test(folder, place):
    """The report of a real one, up to twice the peak, with the numbers of a quiet machine: how these tests fare must not
    depend on what runs beside them. What it tested without TLS is said to be the endpoint with it.
    """
    stages = ",".join(f"400ms:{factor * PEAK / TASK_SECONDS:g}" for factor in (1, 2))
    with Serving("marker") as service:
        done = run("load", "--url", service.url, "--stages", stages, "--json", "load.json", cwd=folder)
        assert done.returncode == 0, done.stderr
    report = json.loads((folder / "load.json").read_text())
    report["setting"]["url"] = place
    report["tester"]["invalid"] = None
    pool = report["targets"]["pool"]
    for part in (pool["total"], *pool["stages"]):
        part |= {"error_rate": 0.0, "reuse": 1.0, "foreign": 0}
        part["first_packet"] |= {"p50": 0.05, "p95": 0.08, "p99": 0.12, "max": 0.2}
    for stage in pool["stages"]:
        stage["tasks"] = round(stage["rate"] * stage["seconds"])
    (folder / "load.json").write_text(json.dumps(report))


class Checked:
    """Runs the verb on a copy of the deployment's folder, which a test may spoil."""

    def __init__(self, monkeypatch, captured, folder):
        self._run = lambda *flags, **environment: run_here(
            monkeypatch, captured, folder, "check", *flags, **environment
        )
        self.folder = folder

    def run(self, *flags, key=KEY, **environment):
        return self._run(*flags, **({"DASHSCOPE_API_KEY": key} if key else {}), **environment)

    def items(self, *flags, key=KEY, code=None, **environment):
        """Each item by its name; and the exit code follows from them."""
        done = self.run("--json", *flags, key=key, **environment)
        assert all(line.startswith("speechpool: warning: ") for line in done.stderr.splitlines()), done.stderr
        assert KEY not in done.stdout
        items = {item["name"]: item for item in json.loads(done.stdout)["items"]}
        failed = any(item["verdict"] == "fail" for item in items.values())
        assert done.returncode == (99 if failed else 0) if code is None else code
        return items

    def change(self, name, old, new):
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def spoil_report(self, **paths):
        """Set values in the load report; `a__b` is a path."""
        content = json.loads((self.folder / "load.json").read_text())
        for path, value in paths.items():
            inner = content
            *steps, last = path.split("__")
            for step in steps:
                inner = inner[step]
            inner[last] = value
        (self.folder / "load.json").write_text(json.dumps(content))


def evidence(item, verdict):
    """What its findings of a verdict say, and what to do."""
    found = [one for one in item["findings"] if one["verdict"] == verdict]
    assert all(bool(one["remedy"]) == (verdict != "pass") for one in found)
    return " ".join(f"{one['evidence']} {one['remedy']}" for one in found)
