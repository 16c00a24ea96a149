"""One definition for each metric: what is written about them is made from it."""

import os
from pathlib import Path

from speechpool.monitoring.catalogue import METRICS

PAGE = Path(__file__).parents[2] / "docs/monitoring.md"
BEGIN, END = "<!-- metrics: from speechpool.monitoring.catalogue -->\n", "<!-- end of the metrics -->"


def rendered():
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for one in METRICS:
        lines.append(f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_every_metric():
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    if os.environ.get("SPEECHPOOL_WRITE_METRICS"):
        PAGE.write_text(before + BEGIN + rendered() + END + after)
    else:
        assert table == rendered(), "run SPEECHPOOL_WRITE_METRICS=1 pytest tests/monitoring/test_catalogue.py"


def test_names_follow_the_conventions():
    names = [one.name for one in METRICS]
    assert len(set(names)) == len(names)
    for one in METRICS:
        assert one.name.startswith("speechpool_")
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert one.name.removesuffix("_total").endswith(one.unit)
        assert one.help.endswith(".")
        assert "pool" not in one.labels
