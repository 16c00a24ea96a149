"""The page docs/benchmarks.md and its chart, from the results that `run.py` has kept."""

from __future__ import annotations

from xml.sax.saxutils import escape

from rows import ROWS

HEAD = """# Benchmarks

Written by `make bench`; `docs/benchmarks.json` holds the figures of every run that is shown here. How each of them is
measured, and why so, is in `benchmarks/README.md`, and by `--help` of each command.

Ratios are what to look at: microseconds differ between machines, and between moments of one machine, by 30 % and more.
What is compared is measured in turn in one run; a ratio is the median of the ratios within one repeat, with the lowest
and the highest of them beside it. CPU is the time that the process under test took, not what the clock said.
"""
LEGEND = "How far each goal was used up: the line is the goal, and a bar that ends left of it has met it."
MET = {True: "met", False: "**missed**", None: ""}


def page(results, parts):
    """Return the text of the page."""
    sections = [(part, results["parts"].get(part.name)) for part in parts]
    measured = [(part, found) for part, found in sections if found]
    lines = [HEAD, f"Machine: {results['machine']}.\n", f"![{LEGEND}](benchmarks.svg)\n", *summary(measured)]
    for part, found in measured:
        lines += section(part, found)
    missing = [part.name for part, found in sections if not found]
    if missing:
        lines.append(f"Not measured here: {', '.join(missing)}.\n")
    return "\n".join(lines)


def rows_of(part, found):
    return [] if "error" in found else list(ROWS[part.name](found["result"]))


def summary(measured):
    rows = [(part, row) for part, found in measured for row in rows_of(part, found) if row.goal is not None]
    met = [row.met for _, row in rows]
    void = f", {met.count(None)} void" if None in met else ""
    yield f"## Goals\n\n{len(rows)} goals: {met.count(True)} met, {met.count(False)} missed{void}.\n"
    yield "| goal | median | lowest - highest | wanted | |\n|---|---|---|---|---|"
    for _, row in rows:
        verdict = f"void: {row.void}" if row.void else MET[row.met]
        yield f"| {row.what} | {row.text(row.median)} | {row.spread} | {row.wanted} | {verdict} |"
    yield ""


def section(part, found):
    yield f"## {part.title}\n\n{part.about}\n"
    yield f"    {part.command}\n"
    if "error" in found:
        yield f"Not measured: {found['error']}\n"
        return
    yield f"{found['at']}, {found['seconds']:.0f} s; other programs took {found['others']:.2f} cores meanwhile.\n"
    if found["quick"]:
        yield "This was a short run (`--quick`): fewer repeats, shorter windows.\n"
    yield "| what | median | lowest - highest | wanted | |\n|---|---|---|---|---|"
    for row in rows_of(part, found):
        verdict = f"void: {row.void}" if row.void else MET[row.met]
        yield f"| {row.what} | {row.text(row.median)} | {row.spread} | {row.wanted} | {verdict} |"
    yield ""
    for package, why in found["result"].get("left_out", {}).items():
        yield f"{package}: {why}.\n"
    for name, profile in found["result"].get("profiles", {}).items():
        yield f"<details><summary>A goal was missed: where the time goes, {name}</summary>\n\n```text"
        yield "\n".join(line.rstrip() for line in profile.splitlines())
        yield "```\n\n</details>\n"
    yield versions(found["result"].get("versions", {}))


def versions(found):
    return f"With {', '.join(f'{name} {number}' for name, number in found.items())}.\n" if found else ""


# ------------------------------------------------------------------------------------ the chart
WIDTH, LEFT, RIGHT, LINE, TOP = 960, 400, 150, 20, 44
GOAL_AT, FURTHEST = 0.6, 1.0
"""Where on the axis the goal stands, and where bars are cut off."""
COLOURS = {True: "#2e8b57", False: "#c0392b"}


def chart(results, parts):
    """Return the chart as SVG: a bar for each goal with a ratio, that is not zero."""
    rows = [
        row
        for part in parts
        if part.name in results["parts"]
        for row in rows_of(part, results["parts"][part.name])
        if row.goal and row.met is not None
    ]
    axis, height = WIDTH - LEFT - RIGHT, TOP + LINE * len(rows) + 16
    goal = LEFT + axis * GOAL_AT
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(LEGEND)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" fill="#333333" font-weight="bold">part of each goal that is used up</text>',
        f'<text x="{goal:.0f}" y="36" fill="#333333" text-anchor="middle">goal</text>',
    ]
    for number, row in enumerate(rows):
        y, (used, low, high) = TOP + LINE * number, used_up(row)
        right = LEFT + axis * min(FURTHEST, used * GOAL_AT)
        lines.append(f'<text x="{LEFT - 8}" y="{y + 13}" fill="#333333" text-anchor="end">{escape(row.what)}</text>')
        lines.append(
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(1.0, right - LEFT):.1f}" height="12" fill="{COLOURS[row.met]}"/>'
        )
        if low is not None:
            ends = [LEFT + axis * min(FURTHEST, max(0.0, value) * GOAL_AT) for value in (low, high)]
            lines.append(
                f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y + 9}" y2="{y + 9}" stroke="#222222" '
                'stroke-width="2"/>'
            )
        sign = "&lt;=" if row.below else "&gt;="
        text = f"{escape(row.text(row.median))} ({sign} {escape(row.text(row.goal))})"
        lines.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 13}" fill="#333333">{text}</text>')
    bottom = TOP + LINE * len(rows)
    lines.append(f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{TOP - 4}" y2="{bottom}" stroke="#333333"/>')
    return "\n".join([*lines, "</svg>", ""])


def used_up(row):
    """Return the parts of the goal that the median, the lowest and the highest use up; above 1 it is missed."""
    if row.below:
        return tuple(None if value is None else value / row.goal for value in row.reached)
    return tuple(None if value is None else row.goal / value if value > 0 else FURTHEST for value in row.reached)
