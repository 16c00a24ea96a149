"""What a load test shows, with the command line that shows it: each against a service of its own, on this machine."""

import json
import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ROUND_TRIP = 0.05


def load(folder, *arguments, codes=(0,)):
    """The report of a run, and its page."""
    command = [sys.executable, "-m", "speechpool", "load", "--json", "report.json", "--html", "report.html"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    sys.stdout.write(done.stdout)
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


# ------------------------------------------------------------------------------------------ pool, fresh, sdk
def test_a_warm_pool_costs_two_round_trips_and_the_page_shows_what_others_cost(tmp_path):
    # The delay of the engine, and of everything on this machine: the same without the network.
    near, _ = load(tmp_path, "--rate", "40", "--seconds", "10", "--max-size", "120")
    engine = near["targets"]["pool"]["total"]["first_packet"]["p50"]
    flags = ("--rate", "14", "--seconds", "20", "--max-size", "60", "--target", "pool,fresh,sdk")
    report, page = load(tmp_path, *flags, "--fault", f"latency@both:{500 * ROUND_TRIP:g}ms")
    totals = {name: target["total"] for name, target in report["targets"].items()}
    first = {name: total["first_packet"] for name, total in totals.items()}
    sys.stdout.write(f"engine {1000 * engine:.1f} ms, {json.dumps(first)}\n")

    expected = engine + 2 * ROUND_TRIP
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
