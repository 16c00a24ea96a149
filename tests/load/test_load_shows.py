"""What a load test shows, with the command line that shows it: each against a service of its own, on this machine."""

import asyncio
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from statistics import fmean, median

import pytest

from speechpool.service.engines.replay import PROFILES, spoken_seconds
from speechpool.testing.proxy import FaultProxy, Latency

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ROUND_TRIP = 0.05


def load(folder, *arguments, codes=(0,)):
    """The report of a run, and its page."""
    command = [sys.executable, "-m", "speechpool", "load", "--json", "report.json", "--html", "report.html"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    sys.stdout.write(done.stdout)
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


# ------------------------------------------------------------------------------------------ twice the peak
EXPECTED = ("first_packet.p99@2x<500ms", "first_packet.p99@2x hold<500ms", "error_rate<0.1%", "reuse>99%", "foreign<1")


@pytest.mark.parametrize("peak", [60, 300])
def test_twice_a_peak_on_two_cores_and_the_page_tells_the_same_numbers(tmp_path, in_a_browser, peak):
    flags = [flag for text in EXPECTED for flag in ("--expect", text)]
    report, _ = load(tmp_path, "--peak", str(peak), "--scale-time", "0.2", *flags, codes=(0, 99))
    pool = report["targets"]["pool"]
    cells, text, problems = in_a_browser(tmp_path / "report.html")
    assert problems == []
    rows = {row[0]: row[1:] for row in cells}
    for stage in (*pool["stages"], {"name": "all judged", **pool["total"]}):
        shown = rows[stage["name"]]
        assert shown[0] == f"{stage['tasks']:,}"
        for at, name in ((2, "error_rate"), (3, "reuse"), (4, "goodput")):
            assert shown[at] == f"{stage[name]:.2%}"
        delays = [stage[name][mark] for name in ("first_packet", "end_to_end") for mark in ("p50", "p95", "p99")]
        assert shown[-6:] == [f"{1000 * delay:.1f} ms" for delay in delays]
    for one in report["expectations"]:
        assert rows[one["expectation"]] == [
            "pool",
            f"{one['value']:,.4g}".removesuffix(".0"),
            "holds" if one["holds"] else "fails",
        ]
    assert f"{1000 * pool['total']['first_packet']['mean']:.1f} ms" in text  # beside the bar

    assert len(report["expectations"]) == len(EXPECTED)
    if report["tester"]["starved"] > 0.2:
        pytest.skip(f"other programs have the processors: {report['tester']}")
    # Whoever is late measures no delay, but errors, reuse and foreign audio are what they are.
    late = report["tester"]["invalid"] is not None
    kept = [one for one in report["expectations"] if not (late and one["expectation"].startswith("first_packet"))]
    assert [one for one in kept if not one["holds"]] == []
    assert [stage["name"] for stage in pool["stages"]][4:6] == ["2x", "2x hold"]
    assert pool["stages"][5]["tasks"] > 3 * peak
    if late:
        pytest.skip(f"its delays prove nothing: {report['tester']['invalid']}")
    assert pool["recovery"]["seconds"] is not None


@pytest.fixture
def in_a_browser():
    """Open a page without a network; return its cells, its text, and what the browser complains of."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        assert not os.environ.get("CI"), "needs chromium (make tools)"
        pytest.skip("needs chromium (make tools)")
    sync_api = pytest.importorskip("playwright.sync_api")

    def look(path):
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_context(offline=True).new_page()
            problems = []
            page.on("console", lambda message: problems.append(message.text))
            page.on("request", lambda request: request.url == path.as_uri() or problems.append(request.url))
            page.goto(path.as_uri())
            script = "[...document.querySelectorAll('tr')].map(row => [...row.querySelectorAll('td')].map(one => one.textContent))"
            cells = [row for row in page.evaluate(script) if row]
            text = page.evaluate("document.body.textContent")
            browser.close()
        return cells, text, problems

    return look


# ------------------------------------------------------------------------------------------ pool, fresh, sdk
async def emulated(echoes=20):
    """How long a round trip through the proxy really takes: its timers are late by a millisecond or so."""

    gone = asyncio.Event()

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        async with FaultProxy(*server.sockets[0].getsockname()) as proxy:
            proxy.add(Latency(ROUND_TRIP / 2), direction="both")
            reader, writer = await asyncio.open_connection(*proxy.address)
            taken = []
            for _ in range(echoes):
                begun = time.monotonic()
                writer.write(b"x")
                await reader.readexactly(1)
                taken.append(time.monotonic() - begun)
            writer.close()
            await writer.wait_closed()
            await gone.wait()
    assert ROUND_TRIP <= median(taken) < 1.2 * ROUND_TRIP
    return median(taken)


def test_a_warm_pool_costs_two_round_trips_and_the_page_shows_what_others_cost(tmp_path):
    flags = ("--rate", "12", "--seconds", "25", "--max-size", "60", "--target", "pool,fresh,sdk")
    # The delay of the engine, and of everything on this machine: the same without the network.
    near, _ = load(tmp_path, *flags)
    engine = near["targets"]["pool"]["total"]["first_packet"]["p50"]
    report, page = load(tmp_path, *flags, "--fault", f"latency@both:{500 * ROUND_TRIP:g}ms")
    totals = {name: target["total"] for name, target in report["targets"].items()}
    first = {name: total["first_packet"] for name, total in totals.items()}
    sys.stdout.write(f"engine {1000 * engine:.1f} ms, {json.dumps(first)}\n")

    if report["tester"]["starved"] > 0.2:
        pytest.skip(f"the machine has other things to do: {report['tester']}")
    expected = engine + 2 * asyncio.run(emulated())
    assert first["pool"]["p50"] == pytest.approx(expected, rel=0.05)
    assert totals["pool"]["reuse"] == 1.0
    assert totals["fresh"]["reuse"] == 0.0
    assert totals["fresh"]["parts"]["connection"] > ROUND_TRIP > 10 * totals["pool"]["parts"]["connection"]
    assert first["fresh"]["p50"] > first["pool"]["p50"] + 0.8 * ROUND_TRIP
    assert first["sdk"]["p50"] > first["fresh"]["p50"]
    for name in totals:
        assert totals[name]["error_rate"] == 0
        assert totals[name]["foreign"] == 0

    # The picture: a bar for each, as long as its mean delay, and beside it what it costs more than the best.
    bars = re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*><title>(\w+): ', page)
    long = {name: sum(float(width) for width, of in bars if of == name) for name in totals}
    for name, total in totals.items():
        mean = total["first_packet"]["mean"]
        assert long[name] / long["pool"] == pytest.approx(mean / totals["pool"]["first_packet"]["mean"], rel=0.02)
        if name != "pool":
            assert f"{1000 * (mean - totals['pool']['first_packet']['mean']):.1f} ms more than pool" in page


# ------------------------------------------------------------------------------------------ the knee
TEXT = "Your order left the warehouse this morning."
CONNECTIONS = 40


def test_the_sweep_finds_the_knee_of_the_model(tmp_path):
    # A task holds its connection for the drawn delay, and for the time that its chunks take.
    draws = random.Random(1)
    pace = [PROFILES["healthy"](draws) for _ in range(20_000)]
    chunks = math.ceil(spoken_seconds(TEXT) / (0.1 / pace[0].factor))
    seconds = fmean(one.delay for one in pace) + 0.1 * chunks
    expected = CONNECTIONS / seconds

    (tmp_path / "texts").write_text(TEXT)
    flags = ("--texts", "texts", "--peak", "20", "--max-size", str(CONNECTIONS), "--arrivals", "constant")
    report, _ = load(tmp_path, *flags, "--sweep", "--seconds", "5")
    found = report["sweep"]["rate"]
    sys.stdout.write(f"the model says {expected:.1f} tasks a second, found were {found:.1f}\n")
    assert found == pytest.approx(expected, rel=0.1)
    assert report["sweep"]["because"]
    assert report["sweep"]["fails_at"] <= 1.05 * found
    assert report["sweep"]["tasks_at_once"] == pytest.approx(CONNECTIONS, rel=0.15)
