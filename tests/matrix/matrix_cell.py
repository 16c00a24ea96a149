"""One cell of the matrix: a task is brought into a phase, the fault strikes, and what became of it is written down.

A real pool on real sockets, through the fault proxy, against the real service, whose backend speaks when it is told to.
Nothing is timed but the deadlines themselves, a fraction of their defaults.
"""

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field

from speechpool import AsyncSpeechPool, Deadlines, Endpoint, Voice
from speechpool.errors import EndpointDown, SpeechPoolError
from speechpool.limits import LocalQuota
from speechpool.service import ServiceSettings, SpeechService
from speechpool.service.fault_kinds import FAULTS as SERVICE_FAULTS
from speechpool.service.faults import Faults, parse_fault
from speechpool.testing.proxy import FAULTS as PROXY_FAULTS
from speechpool.testing.proxy import FaultProxy

PHASES = ("dialling", "idle", "starting", "sending", "first audio", "mid audio", "finishing", "cancelling")
MOMENTS = dict(zip(PHASES[1:], ("idle", "starting", "started", "first-audio", "mid-audio", "finishing", "cancelling")))  # noqa: B905
"""What the service calls a phase."""

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
LIMIT = 4.0
"""Seconds of each deadline; a fault that only delays takes a thirtieth of it."""
HEARTBEAT = 0.4
"""Seconds. A silent peer is given up after at most three of them."""
QUIET = 5 * HEARTBEAT
"""Seconds after which nothing more is expected to happen to a connection."""
PIECE = 4000

# kind: what is asked for. Those of the service strike once, except at the handshake; those of the proxy stay until
# the task has its outcome.
ASKED = {
    "proxy latency": "latency@both:60ms,20ms",
    "proxy bandwidth": "bandwidth@both:40k",
    "proxy slow-close": "slow-close@both:100ms",
    "proxy timeout": "timeout@both:100ms",
    "proxy reset-peer": "reset-peer@both",
    "proxy slicer": "slicer@both:20,19",
    "proxy limit-data": "limit-data:60",
    "proxy half-open": "half-open@both",
    "proxy no-pong": "no-pong",
    "proxy refuse": "refuse",
    "proxy drop": "drop",
    "refuse": "refuse:503",
    "handshake-delay": "handshake-delay:120ms",
    "handshake-stall": "handshake-stall",
    "handshake-drop": "handshake-drop",
    "stall": "stall",
    "drop": "drop",
    "close": "close",
    "throttle": "throttle",
    "fail": "fail",
    "invalid-action": "invalid-action",
    "delay": "delay:120ms",
    "slow-read": "slow-read:120ms",
    "early-audio": "early-audio",
    "late-audio": "late-audio:0s",
    "duplicate-finish": "duplicate-finish:0s",
    "wrong-id": "wrong-id",
    "broken-json": "broken-json",
}
SLOW_CLOSE = "proxy slow-close"
"""Delays an end, so the service drops the connection in the phase, as under `drop`."""
_KINDS = {kind.name: kind for kind in SERVICE_FAULTS}
OF_HANDSHAKES = {"proxy refuse", *(kind.name for kind in SERVICE_FAULTS if not kind.phases)}
"""They strike a dial. Beyond the phase of dialling, that of another connection, which the pool opens meanwhile."""


def every_fault():
    """The kinds that exist, as the table names them."""
    return [f"proxy {kind.kind}" for kind in PROXY_FAULTS] + [kind.name for kind in SERVICE_FAULTS]


@dataclass
class Seen:
    """What became of one cell."""

    outcome: str = ""
    fate: str = ""
    handshakes: int = -1
    problems: list = field(default_factory=list)


class Switch(Faults):
    """The faults of the service: switched on at a moment, struck once."""

    def __init__(self):
        super().__init__(())
        self.armed = None
        self.struck = 0

    strike_sessions = True

    def at(self, phase):
        fault = self.armed
        if fault is None or fault.phase != phase:
            return []
        if phase:
            self.armed = None
        self.struck += 1
        return [fault]


def audio_of(task_id, size, start=0):
    """Audio that says whose it is."""
    record = hashlib.sha256(task_id.encode()).digest()
    return (record * (1 + (start + size) // len(record)))[start : start + size]


class Speech:
    """One task at the service. The first one of a cell waits to be told; the others speak at once."""

    def __init__(self, task_id, listener, *, manual):
        self.id, self.listener, self.manual = task_id, listener, manual
        self.heard = ""
        self.begun = False
        self.complete = asyncio.Event()
        self.over = False

    def text(self, text):
        self.heard += text

    def passages(self, passages):
        raise NotImplementedError

    def flush(self):
        pass

    def pause(self):
        pass

    def resume(self):
        pass

    def finish(self):
        self.complete.set()
        if not self.manual:
            self._speak()

    def release(self):
        """Wait to be told no longer: its segment is not the first one of the task, or nobody leads it on."""
        self.manual = False
        if self.complete.is_set() and not self.begun:
            self._speak()

    def _speak(self):
        self.first()
        self.rest()
        self.end()

    def cancel(self):
        self.over = True

    def first(self):
        self.begun = True
        if not self.over:
            self.listener.on_sentence_begin(0, self.heard)
            self.listener.on_audio(audio_of(self.id, PIECE))

    def rest(self):
        if not self.over:
            self.listener.on_audio(audio_of(self.id, PIECE, PIECE))
            self.listener.on_sentence_end(0, self.heard, (), len(self.heard))

    def end(self):
        if not self.over:
            self.over = True
            self.listener.on_finished(len(self.heard))


class Backend:
    """Hands out speeches."""

    name = engine = "matrix"
    profile = None

    def __init__(self):
        self.speeches = []
        self.manual = True

    async def start(self):
        pass

    async def close(self):
        pass

    def voices(self):
        return ["longanyang"]

    def open(self, task_id, parameters, listener, *, client=""):
        self.speeches.append(Speech(task_id, listener, manual=self.manual and not self.speeches))
        return self.speeches[-1]


class Cell:
    """See the module. `await Cell(kind, phase).run()` returns what was seen."""

    def __init__(self, kind, phase):
        self.kind, self.phase = kind, phase
        self.seen = Seen()
        self.switch, self.backend = Switch(), Backend()
        self.got = []
        self.of_proxy = kind.startswith("proxy ")
        self.active = None
        self.native, self.fault = False, None
        if not self.of_proxy or kind == SLOW_CLOSE:
            name, _, value = ASKED["drop" if kind == SLOW_CLOSE else kind].partition(":")
            known = _KINDS[name]
            moment = MOMENTS.get(phase, "")
            self.native = moment in known.phases
            # Where it cannot strike in this phase, it is switched on in it, and strikes at its next moment.
            later = [*list(MOMENTS.values())[PHASES.index(phase) :], "finished"]
            moment = moment if self.native else next((one for one in later if one in known.phases), "")
            place = f"@{moment}" if moment else ""
            self.fault = parse_fault(f"{name}{place}{value and ':'}{value}")

    # ------------------------------------------------------------------------------------ the run
    async def run(self):
        quota = LocalQuota()
        settings = ServiceSettings(submission_rate=None)
        async with SpeechService(self.backend, port=0, settings=settings, faults=self.switch) as service:
            host, port = service.url.split("/")[2].split(":")
            path = "/" + service.url.split("/", 3)[3]
            async with FaultProxy(host, int(port), seed=1) as self.proxy:
                self.pool = AsyncSpeechPool(
                    Endpoint(self.proxy.url("ws", path), api_key="k"),
                    max_size=2, min_size=0, heartbeat=HEARTBEAT, quota=quota,
                    borrow_timeout=2 * LIMIT, outage_after=0.4, open_backoff=0.02, open_backoff_cap=0.1,
                    open_backoff_idle_cap=0.1, close_timeout=0.5, idle_timeout=600.0,
                    deadlines=Deadlines(connect=LIMIT, start=LIMIT, first_audio=LIMIT, gap=LIMIT, total=60.0, cancel=LIMIT),
                )  # fmt: skip
                async with self.pool:
                    await self._watched()
        return self.seen

    async def _watched(self):
        if self.phase != "dialling":
            # No floor: it would dial beside the task, sooner or later.
            await self.pool.resize(2, 1)
            await self.pool.wait_ready()
            await self.pool.resize(2, 0)
            await asyncio.sleep(1.5 * HEARTBEAT)  # this endpoint has answered a ping
        self.before = self.pool.stats
        try:
            async with asyncio.timeout(8 * LIMIT):
                await self._task()
        except TimeoutError:
            self.seen.problems.append("the task has no outcome")
        await self._quiet()
        self.seen.fate = self._fate()
        self._disarm()
        self.backend.manual = False
        await self._heal()
        self.seen.handshakes = self.pool.stats.opened - self.before.opened

    async def _task(self):
        if self.phase in {"dialling", "idle"}:
            if (self.kind, self.phase) == ("proxy drop", "dialling"):
                await self._drop_a_dial()
            else:
                self._arm()
            if self.phase == "idle":
                await self._quiet()
        elif self.native:
            self._arm()
        task = self.task = self.pool.task(VOICE, sink=self._hear)
        try:
            async with task:
                await self._walk(task)
                await task.wait()
        except SpeechPoolError as error:
            self.error = error
        retries = task.report.retries
        self.seen.outcome = {
            "completed": f"completed, {retries} retry" if retries else "completed",
            "failed": f"failed: {type(task._error).__name__}",
        }.get(task.outcome, task.outcome)
        self._look_at_audio(task)

    async def _walk(self, task):
        """Lead the first segment through its phases; after a break the rest goes by itself."""
        if self.phase == "starting" or (self.kind == "late-audio" and self.phase in {"dialling", "idle"}):
            self._enter(task)
            if self._leaves(task):
                return
        await self._until(lambda: self._speech() is not None and task._progress.started, task)
        await task.send("Good ")
        if self.phase == "sending":
            await self._until(lambda: self._speech().heard == "Good ", task)
            self._enter(task)
            if self._leaves(task):
                return
        await task.send("morning. ")
        await task.finish()
        speech = self._speech()
        if speech is None or task.outcome is not None:
            self.backend.manual = False
            return
        await self._until(speech.complete.is_set, task)
        for phase, step in (("first audio", speech.first), ("mid audio", speech.rest), ("finishing", speech.end)):
            if self.phase == phase or (self.phase, phase) == ("cancelling", "mid audio"):
                self._enter(task)
                if self._leaves(task):
                    return
            before = len(self.got)
            if self._gone(task):
                speech.release()
                return
            step()
            if phase != "finishing":
                await self._until(lambda: len(self.got) > before, task)  # noqa: B023  # awaited within the turn

    def _enter(self, task):
        if not self.native:
            self._arm()

    def _leaves(self, task):
        """Whether the caller leaves in this phase: a barge-in, or what late audio needs."""
        if self.phase == "cancelling" or self.kind == "late-audio":
            task._cancel()
            return True
        return False

    def _speech(self):
        return self.backend.speeches[0] if self.backend.speeches else None

    def _gone(self, task):
        return task.outcome is not None or len(task.request_ids) > 1

    async def _until(self, condition, task):
        """Wait for a moment of the first segment, or for its end."""
        while not (self._gone(task) or condition()):
            await asyncio.sleep(0.005)

    # ------------------------------------------------------------------------------------ the fault
    def _arm(self):
        if self.of_proxy:
            self.active = self.proxy.add(ASKED[self.kind])
        self.switch.armed = self.fault
        # A session meets its phase `idle` but once, when it opens.
        opens = self.kind in OF_HANDSHAKES or (self.native and self.phase == "idle")
        if opens and self.phase != "dialling":
            self.growing = asyncio.get_running_loop().create_task(self.pool.resize(2, 2))

    async def _drop_a_dial(self):
        """Hold the handshake up, drop its socket, and let the next one pass."""
        held = self.proxy.add("latency@upstream:60s")
        await self.pool.resize(2, 1)
        while not held.strikes:
            await asyncio.sleep(0.005)
        self._arm()
        held.remove()

    def _disarm(self):
        if self.active is not None:
            self.active.remove()
        self.switch.armed = None
        struck = self.switch.struck if not self.of_proxy else self.active.strikes
        if not struck and self.kind != "proxy refuse":  # that the kernel does
            self.seen.problems.append("the fault never struck")

    async def _quiet(self):
        """Wait until something has happened to a connection, or nothing will."""
        before, since = self._ends(), asyncio.get_running_loop().time()
        while self._ends() == before == 0 and asyncio.get_running_loop().time() - since < QUIET:
            await asyncio.sleep(0.01)
        while self.pool.stats.borrowed and asyncio.get_running_loop().time() - since < 2 * LIMIT:
            await asyncio.sleep(0.01)  # a cancel waits for its answer

    def _ends(self):
        stats = self.pool.stats
        return stats.opened - stats.idle - stats.borrowed - (self.before.opened - self.before.idle)

    def _fate(self):
        discarded = {
            reason: count - self.before.discarded.get(reason, 0) for reason, count in self.pool.stats.discarded.items()
        }
        reasons = [reason for reason, count in discarded.items() if count]
        if reasons:
            return f"closed ({reasons[0]})"
        return "dial failed" if self.phase == "dialling" and self.pool.stats.open_failed else "kept"

    # ------------------------------------------------------------------------------------ what must hold in every cell
    def _hear(self, event):
        if isinstance(event, bytes):
            self.got.append(event)

    def _look_at_audio(self, task):
        audio = b"".join(self.got)
        if audio != audio_of(task.request_id or "", len(audio)):
            self.seen.problems.append("audio of another task")
        if task.outcome == "completed" and len(audio) != 2 * PIECE:
            self.seen.problems.append(f"{len(audio)} bytes of audio instead of {2 * PIECE}")
        if task.outcome is None:
            self.seen.problems.append("no outcome")

    async def _heal(self):
        """Without help: the floor is there again, and a task completes."""
        try:
            async with asyncio.timeout(6 * LIMIT):
                speech = await self._next()
                if speech.audio != audio_of(speech.request_id, 2 * PIECE):
                    self.seen.problems.append("the next task is not whole")
                while self.pool.stats.idle < self.pool.stats.min_size or self.pool.stats.borrowed:
                    await asyncio.sleep(0.01)
        except (SpeechPoolError, TimeoutError) as error:
            self.seen.problems.append(f"the pool does not heal: {type(error).__name__} {error}")

    async def _next(self):
        while True:
            try:
                return await self.pool.synthesize("Good evening.", VOICE)
            except EndpointDown:
                await asyncio.sleep(0.05)  # until a probe has found that the fault is gone


async def run_all(cells, at_once=32):
    """Run many cells at once: they share nothing but the processor, and wait most of the time.

    They begin one after the other: were dozens set up in one turn, a heartbeat could miss its pong for want of a processor.
    """
    slots, beginning = asyncio.Semaphore(at_once), asyncio.Lock()

    async def one(kind, phase):
        async with slots:
            async with beginning:
                await asyncio.sleep(0.04)
            cell = Cell(kind, phase)
            try:
                return await cell.run()
            except Exception as error:  # a cell that breaks must not take the others along
                cell.seen.problems.append(f"{type(error).__name__}: {error}")
                return cell.seen

    with contextlib.suppress(asyncio.CancelledError):
        return dict(zip(cells, await asyncio.gather(*(one(*cell) for cell in cells)), strict=True))
