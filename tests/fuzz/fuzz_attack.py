"""Attackers: each holds conversations with the service and judges every byte of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from random import Random

from fuzz_frames import NORMAL, Case, conversation
from fuzz_handshakes import STATUSES, handshake, request
from fuzz_wire import BINARY, CLOSE, PING, PONG, TEXT, close, frame, read_frame

from speechpool.service.engines.marker import check

KEY = "fuzz"
PATIENCE = 20.0
"""Seconds without any answer after which the service counts as hung."""
HANDSHAKES = 0.3
"""Share of conversations that are one wrong handshake. As the others have several frames, about a tenth of all cases."""
ENOUGH = 10
"""Findings after which an attack stops."""
EVENTS = frozenset({"task-started", "result-generated", "task-finished", "task-failed"})


class Attack:
    """Holds conversations until `cases` have reached the service.

    Conversation number n depends on the seed and on n alone, so it can be repeated by itself.

    Args:
        port: Of the service.
        seed: Of everything that is drawn.

    Attributes:
        kinds: How often each kind of case was sent.
        answers: How often each kind of answer came: events, close codes, statuses of HTTP.
        findings: What the service did and must not do, each kind with one conversation that repeats it.
    """

    def __init__(self, port: int, seed: str) -> None:
        self.kinds: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.findings: dict[str, str] = {}
        self._port = port
        self._seed = seed
        self._next = 0

    @property
    def cases(self) -> int:
        """Frames and handshakes that reached the service."""
        return self.kinds.total()

    async def run(self, cases: int, *, attackers: int = 24) -> None:
        """Send some `cases` more, or stop early where there are findings enough to read."""
        goal = self.cases + cases

        async def attacker() -> None:
            while self.cases < goal and len(self.findings) < ENOUGH:
                self._next += 1
                await self.talk(self._next)

        async with asyncio.TaskGroup() as group:
            for _ in range(attackers):
                group.create_task(attacker())

    async def talk(self, number: int) -> None:
        """Hold conversation `number`."""
        random = Random(f"{self._seed}/{number}")
        talk = _Talk(self._port, random, self.kinds, self.answers)
        try:
            async with asyncio.timeout(PATIENCE):
                await (talk.shake_hands_badly() if random.random() < HANDSHAKES else talk.converse())
        except (AssertionError, TimeoutError, ValueError) as error:
            what = str(error) or "it answers nothing"
            cases = "\n".join(f"  {each}" for each in talk.said[-4:])
            text = f"{what}\n  repeat with SPEECHPOOL_FUZZ={self._seed}/{number}; its last cases:\n{cases}"
            self.findings.setdefault(what, text)
        finally:
            talk.hang_up()


class _Talk:
    """One connection of an attacker."""

    def __init__(self, port: int, random: Random, kinds: Counter[str], answers: Counter[str]) -> None:
        self.said: list[str] = []
        self._port, self._random, self._kinds, self._answers = port, random, kinds, answers
        self._writer: asyncio.StreamWriter | None = None
        self._running = self._failed = self._silent = False
        self._task_id, self._audio = "", bytearray()

    async def shake_hands_badly(self) -> None:
        """Send a wrong request and the end of the stream; what comes back, if anything, is an answer of HTTP."""
        kind, data = handshake(self._random, KEY)
        reader = await self._connect()
        self._send(f"handshake: {kind}", data)
        if self._random.random() < 0.1:
            return  # gone, without any farewell
        self._end_of_stream()
        answer = await _all(reader)
        if answer:
            words = answer.split(b" ", 2)
            assert words[0] == b"HTTP/1.1", f"no HTTP: {answer[:100]!r}"
            assert int(words[1]) in STATUSES, f"answered {answer[:200]!r}"
            self._answers[words[1].decode()] += 1

    async def converse(self) -> None:
        """Open a connection well, then say what `conversation` makes up until one side has enough."""
        reader = await self._connect()
        await self._shake_hands(reader)
        for case in conversation(self._random):
            if not await self._say(reader, case):
                return
        if self._random.random() < 0.7:
            self._write(close(NORMAL))
            await self._read_to_the_end(reader, None)

    async def _connect(self) -> asyncio.StreamReader:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return reader

    async def _shake_hands(self, reader: asyncio.StreamReader) -> None:
        data = request(self._random, KEY)
        cut = self._random.choice((len(data), self._random.randrange(len(data))))
        self._write(data[:cut])
        if cut < len(data):
            await asyncio.sleep(0)
            self._write(data[cut:])
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), f"a right handshake was answered {answer[:100]!r}"

    async def _say(self, reader: asyncio.StreamReader, case: Case) -> bool:
        """Send one case and a ping; whether the connection lives on. The pong says that all before it was read."""
        mark = self._random.randbytes(8)
        if case.last:
            self._send(case.kind, case.data)
            if self._random.random() < 0.3:
                return False  # gone, without any farewell
            self._end_of_stream()
            await self._read_to_the_end(reader, case)
            return False
        self._send(case.kind, case.data + frame(PING, mark))
        while True:
            got = await read_frame(reader)
            if got is None or got[0] == CLOSE:
                await self._ended(reader, case, got)
                return False
            if got == (PONG, mark):
                assert not case.closes or self._failed, f"it took a case of kind {case.kind!r}"
                return True
            self._take(*got)

    async def _read_to_the_end(self, reader: asyncio.StreamReader, case: Case | None) -> None:
        while (got := await read_frame(reader)) is not None:
            if got[0] == CLOSE:
                await self._ended(reader, case, got)
                return
            self._take(*got)

    async def _ended(self, reader: asyncio.StreamReader, case: Case | None, got: tuple[int, bytes] | None) -> None:
        assert got is not None, f"it dropped the connection without a close frame after {case.kind!r}"
        code = int.from_bytes(got[1][:2])
        self._answers[f"close {code}"] += 1
        assert len(got[1]) >= 2, "its close frame has no code"
        got[1][2:].decode()
        right = {NORMAL} if case is None or self._failed else set()
        assert code in right or (case is not None and code in case.codes), f"it closed with {code} {got[1][2:]!r}"
        if self._random.random() < 0.8:  # the others hang up without an answer
            self._write(close(code) if code < 5000 else b"")
            assert await _all(reader) == b"", "it went on after its close frame"

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._take_event(json.loads(payload))
        elif opcode == BINARY:
            assert self._running, "audio outside of a task"
            self._audio += payload
            check(bytes(self._audio), self._task_id)
        else:
            assert opcode == PONG, f"it sent opcode {opcode}"

    def _take_event(self, event: dict) -> None:
        name = event["header"]["event"]
        assert name in EVENTS, name
        self._answers[name] += 1
        assert not self._failed, f"{name} after task-failed"
        assert self._running is (name != "task-started") or name == "task-failed", f"{name} out of order"
        if name == "task-started":
            self._running, self._task_id, self._audio = True, event["header"]["task_id"], bytearray()
        elif name == "task-finished":
            self._running = False
        elif name == "task-failed":
            self._failed = True
            assert event["header"]["error_code"] not in {"InternalError", "InternalError.Algo"}, event

    def _send(self, kind: str, data: bytes) -> None:
        self._kinds[kind] += 1
        self.said.append(f"{kind}: {data[:600]!r}{'...' if len(data) > 600 else ''} ({len(data)} bytes)")
        self._write(data)

    def _write(self, data: bytes) -> None:
        if not (self._silent or self._writer.is_closing()):
            self._writer.write(data)

    def _end_of_stream(self) -> None:
        self._silent = True
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def _all(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(OSError):
        return await reader.read()
    return b""


def chosen(default: str) -> tuple[str, int | None]:
    """The seed, and the one conversation that SPEECHPOOL_FUZZ=SEED/NUMBER asks to repeat; else `default` and all."""
    seed, _, number = os.environ.get("SPEECHPOOL_FUZZ", default).partition("/")
    return seed, int(number) if number else None
