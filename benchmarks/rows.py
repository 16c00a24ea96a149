"""From what each benchmark prints with --json to the rows of one page: figures, and goals that were met or missed."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        what: Its name.
        reached: The median, the lowest and the highest; the last two None where it was measured once.
        unit: Stands behind the numbers; empty for a ratio.
        goal: What it shall reach, or None: a figure for information.
        below: Whether it shall stay below the goal.
        places: Decimal places.
        void: Why it says nothing, if so.
    """

    what: str
    reached: tuple[float, float | None, float | None]
    unit: str = ""
    goal: float | None = None
    below: bool = True
    places: int = 2
    void: str = ""

    @property
    def median(self):
        return self.reached[0]

    @property
    def met(self):
        """Whether the goal was reached; None without one, or where the figure says nothing."""
        if self.goal is None or self.void:
            return None
        return self.median <= self.goal if self.below else self.median >= self.goal

    def text(self, value):
        return f"{value:,.{self.places}f}{self.unit}"

    @property
    def spread(self):
        _, low, high = self.reached
        return "" if low is None else f"{low:,.{self.places}f} - {high:,.{self.places}f}"

    @property
    def wanted(self):
        return "" if self.goal is None else f"{'at most' if self.below else 'at least'} {self.text(self.goal)}"


def once(value):
    return value, None, None


def scaled(values, factor):
    return tuple(None if value is None else value * factor for value in values)


# ------------------------------------------------------------------------------------ one function a benchmark
def task_cost(result):
    for row in result["rows"].values():
        title = f"{row['client']}{', pinned to one core' if row['one_core'] else ''}, CPU a task"
        void = "the server was the limit" if row["void"] else ""
        low, high = row["cpu_us_spread"]
        yield Row(what=title, reached=(row["cpu_us"], low, high), unit=" us", places=0, void=void)
    for name, ratio in result["ratios"].items():
        if ratio is None:
            continue
        (kind, goal), *_ = result["goals"][name].items()
        reached = (ratio, *result["ratios_spread"][name])
        yield Row(what=name.replace("_", " "), reached=reached, goal=goal, below=kind == "at_most")


def paced(result):
    for row in result["rows"].values():
        title = f"{row['client']}, {row['streams']:,} streams"
        yield Row(what=f"{title}, of a core", reached=scaled(row["cores"], 100), unit=" %", places=0)
        yield Row(what=f"{title}, p99 lateness", reached=tuple(row["p99_ms"]), unit=" ms", places=1)
        yield Row(what=f"{title}, p99 of the server's own", reached=tuple(row["server_p99_ms"]), unit=" ms", places=1)
    for name, goal in result["goals"].items():
        client, *middle = name.split("_")
        streams = next(word for word in middle if word.isdecimal())
        if client == "sambert":
            cores = f"{streams} Sambert tasks at once, cores"
            yield Row(what=cores, reached=tuple(goal["reached"]), goal=goal["at_most"])
            share = scaled(goal["reached"], 1 / result["brief_cores"])
            yield Row(what=f"the same, over the guide's {result['brief_cores']} cores", reached=share, places=3)
        elif name.endswith("_cpu"):
            title = f"{client} over picows, CPU, {int(streams):,} streams"
            yield Row(what=title, reached=tuple(goal["reached"]), goal=goal["at_most"])
        else:
            title = f"{client} above picows, p99 lateness, {int(streams):,} streams"
            yield Row(what=title, reached=tuple(goal["reached"]), unit=" ms", goal=goal["at_most"], places=1)


def service_throughput(result):
    for name, row in result["rows"].items():
        yield Row(what=f"{name}, speech a second of a core", reached=tuple(row["rate_a_core"]), unit=" s", places=1)
    ratio = tuple(result["service_over_engine"])
    yield Row(what="service over its engine", reached=ratio, goal=result["goal"], below=False)


FIRST_PACKET_TITLES = {
    "picows": "picows, open connection",
    "pooled": "speechpool, warm pool",
    "pooled_early": "speechpool, warm pool, entered before the text was there",
    "fresh": "speechpool, a new pool each time",
    "official_pooled": "official object pool",
    "official_fresh": "official synthesizer, new each time",
    "livekit": "LiveKit's ConnectionPool over aiohttp",
    "aio_websocket_pool": "aio-websocket-pool over websockets",
}


def first_packet(result):
    for name, row in result["rows"].items():
        trips = f"{row['round_trips']} round trip{'s' if row['round_trips'] > 1 else ''}"
        title = f"{FIRST_PACKET_TITLES[name]}: above {trips}"
        yield Row(what=title, reached=tuple(row["overhead_ms"]), unit=" ms", places=1)


def import_time(result):
    for name, values in result["ms"].items():
        if name != "nothing":
            yield Row(what=f"import of {name}, CPU", reached=tuple(values), unit=" ms", places=0)
    yield Row(what="pool over dashscope", reached=tuple(result["pool_over_dashscope"]), goal=result["goal"])


def pool_cycle(result):
    for load, rates in result["cycles_per_second"].items():
        for name, rate in rates.items():
            yield Row(what=f"{name}, {load}, cycles a second", reached=once(rate), places=0)
    for load, ratios in result["ratios"].items():
        if "livekit" in ratios:
            yield Row(what=f"ours over livekit, {load}", reached=tuple(ratios["livekit"]))
    contended, goals = result["ratios"]["contended"], result["goals"]
    real = min((contended[name] for name in ("psycopg", "asyncpg")), key=lambda ratio: ratio[0])
    title = "ours over the faster real pool, contended"
    yield Row(what=title, reached=tuple(real), goal=goals["faster_real_pool"], below=False)
    title = "ours over a bare semaphore, contended"
    yield Row(what=title, reached=tuple(contended["semaphore"]), goal=goals["semaphore"], below=False)
    yield Row(what="overtakings in 10,000 cycles", reached=once(result["overtakings"]), goal=0, places=0)


def warm_up(result):
    titles = {
        "one_by_one": "ten handshakes of 100 ms, one by one",
        "delayed_default": "our pool of 100, 100 ms a handshake, 8 dials at once (default)",
        "delayed_many": "our pool of 100, 100 ms a handshake, 20 dials at once",
        "ours": "our pool of 100, no delay",
        "official": "official pool of 100, no delay",
    }
    for name, title in titles.items():
        if name in result:
            reached = (result[name], *result["spread"].get(name, (None, None)))
            yield Row(what=title, reached=scaled(reached, 1000), unit=" ms", places=0)
    title = "100 connections, 20 at once, over ten one by one"
    yield Row(what=title, reached=once(result["many_over_one_by_one"]), goal=1.0)
    if "ratio" in result:
        yield Row(what="official over ours, no delay", reached=once(result["ratio"]), goal=50, below=False, places=0)


def memory(result):
    for case, figures in result["cases"].items():
        goal = result["goal_kib"] if case.startswith("ws_") else None
        title = f"an idle connection, {case.replace('_', ', ')}"
        yield Row(what=title, reached=once(figures["kib"]), unit=" kB", goal=goal, places=1)
    left = sum(figures["descriptors_left"] for figures in result["cases"].values())
    yield Row(what="descriptors left after closing", reached=once(left), goal=0, places=0)


def listeners(result):
    for row in result["rows"]:
        others = row["others"] or 0.0
        void = f"other programs took {others:.1f} cores" if others > 0.3 else ""
        title = f"{row['audio_format']} at {row['load']:.0%} of the engine's rate"
        yield Row(what=f"{title}, listeners who ran dry", reached=once(row["underruns"]), goal=0, places=0, void=void)
        yield Row(what=f"{title}, throttled", reached=once(100 * row["throttled"]), unit=" %", places=0, void=void)
        first = once(1000 * row["first_audio_p95"])
        yield Row(what=f"{title}, p95 of the first audio", reached=first, unit=" ms", places=0, void=void)


def for_information(rows):
    """Return the same rows without their goals."""
    return lambda result: [replace(row, goal=None) for row in rows(result)]


ROWS = {
    function.__name__: function
    for function in (
        task_cost,
        paced,
        service_throughput,
        first_packet,
        import_time,
        pool_cycle,
        warm_up,
        memory,
        listeners,
    )
} | {"dropin": task_cost, "task_cost_wss": for_information(task_cost)}
