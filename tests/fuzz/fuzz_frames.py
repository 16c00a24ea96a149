"""One conversation with the service: frames that are right, mutated or plainly wrong, all drawn from one seed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from fuzz_instructions import continue_task, mutate_bytes, mutate_tree, other, run_task, written
from fuzz_wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame

NORMAL, PROTOCOL, UNSUPPORTED, MALFORMED, TOO_BIG = 1000, 1002, 1003, 1007, 1009
TEXT_CODES = frozenset({MALFORMED})
LONGEST = 2**20
"""Bytes of the longest frame that the service takes."""
RESERVED_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)


@dataclass(frozen=True, slots=True)
class Case:
    """What goes on the wire at once.

    Attributes:
        kind: For people.
        data: The bytes.
        codes: With which the service may close because of it; 1000 is always right after `task-failed`.
        closes: It must close.
        last: A frame is left unfinished, so that nothing can follow but the end of the stream.
    """

    kind: str
    data: bytes
    codes: frozenset[int] = TEXT_CODES
    closes: bool = False
    last: bool = False


def conversation(random: Random) -> Iterator[Case]:
    """Yield cases for one connection, for as long as it lives: mostly a task that begins well."""
    task_id = f"{random.getrandbits(128):032x}"
    if random.random() < 0.2:
        yield _whole_task(random, task_id)
    if random.random() < 0.7:
        yield Case("run-task", frame(TEXT, written(random, run_task(random, task_id))))
        if random.random() < 0.5:
            yield Case("continue-task", frame(TEXT, written(random, continue_task(random, task_id))))
    for _ in range(random.randint(1, 12)):
        make = random.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
        yield make(random, task_id)


def _payload(random: Random, task_id: str) -> bytes:
    make = random.choice((run_task, continue_task, continue_task, other))
    return written(random, make(random, task_id if random.random() < 0.95 else "another"))


# ------------------------------------------------------------------------------------------ instructions
def _any_order(random: Random, task_id: str) -> Case:
    return Case("any order", frame(TEXT, _payload(random, task_id)))


def _whole_task(random: Random, _task_id: str) -> Case:
    task_id = f"{random.getrandbits(128):032x}"
    finish = {"header": {"action": "finish-task", "task_id": task_id, "streaming": "duplex"}, "payload": {"input": {}}}
    texts = [continue_task(random, task_id) for _ in range(random.randint(0, 3))]
    instructions = [run_task(random, task_id), *texts, finish]
    return Case("whole task", b"".join(frame(TEXT, written(random, each)) for each in instructions))


def _next_text(random: Random, task_id: str) -> Case:
    return Case("text", frame(TEXT, written(random, continue_task(random, task_id)), mask=random.randbytes(4)))


def _tree(random: Random, task_id: str) -> Case:
    make = random.choice((run_task, continue_task, other))
    return Case("mutated JSON", frame(TEXT, mutate_tree(random, make(random, task_id))))


def _bytes(random: Random, task_id: str) -> Case:
    return Case("mutated bytes", frame(TEXT, mutate_bytes(random, _payload(random, task_id))))


def _noise(random: Random, _task_id: str) -> Case:
    return Case("noise as text", frame(TEXT, random.randbytes(random.choice((0, 1, 3, 125, 126, 4000)))))


def _two_at_once(random: Random, task_id: str) -> Case:
    return Case("two in one write", frame(TEXT, _payload(random, task_id)) + frame(TEXT, _payload(random, task_id)))


def _binary(random: Random, task_id: str) -> Case:
    payload = random.choice((b"", random.randbytes(200), _payload(random, task_id)))
    return Case("binary", frame(BINARY, payload), frozenset({UNSUPPORTED}), closes=True)


# ------------------------------------------------------------------------------------------ frames
def _fragments(random: Random, task_id: str) -> Case:
    payload = _payload(random, task_id)
    cuts = sorted(random.choices(range(len(payload) + 1), k=random.randint(1, 6)))
    pieces = [payload[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    data = b""
    for number, piece in enumerate(pieces):
        data += frame(CONTINUATION if number else TEXT, piece, fin=number == len(pieces) - 1)
        if random.random() < 0.2:
            data += frame(random.choice((PING, PONG)), random.randbytes(3))
    return Case("fragments", data)


def _fragments_out_of_order(random: Random, task_id: str) -> Case:
    payload = _payload(random, task_id)
    data = random.choice(
        (
            frame(CONTINUATION, payload),
            frame(CONTINUATION, payload, fin=False),
            frame(TEXT, payload, fin=False) + frame(TEXT, payload),
            frame(TEXT, payload, fin=False) + frame(BINARY, b"", fin=False),
        )
    )
    return Case("fragments out of order", data, frozenset({PROTOCOL}), closes=True)


def _endless_fragments(random: Random, task_id: str) -> Case:
    data = frame(TEXT, _payload(random, task_id), fin=False) + frame(CONTINUATION, b"", fin=False) * 50
    return Case("fragments without an end", data, last=True)


def _unmasked(random: Random, task_id: str) -> Case:
    return _broken("no mask", frame(TEXT, _payload(random, task_id), mask=None))


def _reserved_bits(random: Random, task_id: str) -> Case:
    return _broken("reserved bits", frame(TEXT, _payload(random, task_id), rsv=random.randint(1, 7)))


def _reserved_opcode(random: Random, task_id: str) -> Case:
    return _broken("reserved opcode", frame(random.choice(RESERVED_OPCODES), _payload(random, task_id)[:100]))


def _control(random: Random, _task_id: str) -> Case:
    opcode = random.choice((PING, PONG, CLOSE))
    if random.random() < 0.5:
        return _broken("control frame in fragments", frame(opcode, b"\x03\xe8", fin=False))
    return _broken("control frame too long", frame(opcode, b"\x03\xe8" + b"x" * random.choice((124, 200, 70000))))


def _wrong_width(random: Random, task_id: str) -> Case:
    size, width = random.choice(((5, 16), (125, 16), (5, 64), (65535, 64), (0, 64)))
    return _broken("length written too wide", frame(TEXT, b"x" * size, width=width))


def _too_long(random: Random, _task_id: str) -> Case:
    claimed = random.choice((LONGEST + 1, 2**25, 2**40, 2**63 - 1))
    data = frame(TEXT, random.randbytes(20), claimed=claimed, width=64)
    return Case("message too long", data, frozenset({TOO_BIG}), closes=True)


def _cut_off(random: Random, task_id: str) -> Case:
    data = frame(TEXT, _payload(random, task_id))
    return Case("cut off", data[: random.randrange(len(data))], last=True)


def _shorter_than_said(random: Random, task_id: str) -> Case:
    payload = _payload(random, task_id)
    return Case("shorter than said", frame(TEXT, payload, claimed=len(payload) + random.randint(1, 300)), last=True)


def _noise_on_the_wire(random: Random, _task_id: str) -> Case:
    codes = frozenset({*range(1000, 1015), *range(3000, 5000)})  # it may happen to be a close frame
    return Case("noise on the wire", random.randbytes(random.choice((1, 2, 20, 500))), codes, last=True)


def _broken(kind: str, data: bytes) -> Case:
    return Case(kind, data, frozenset({PROTOCOL}), closes=True)


# ------------------------------------------------------------------------------------------ control frames
def _heartbeats(random: Random, _task_id: str) -> Case:
    pings = (frame(random.choice((PING, PONG)), random.randbytes(random.choice((0, 1, 125)))) for _ in range(20))
    return Case("pings and pongs", b"".join(pings))


def _close(random: Random, _task_id: str) -> Case:
    code = random.choice((random.randint(0, 5500), 1000, 1001, 1005, 1006, 1015, 2999, 3000, 4999, 5000, 65535))
    reason = random.choice((b"", b"bye", "再见".encode(), b"\xff\xfe", b"x" * 123))
    answers = frozenset({code, NORMAL, PROTOCOL, MALFORMED})  # an echo, or a complaint
    return Case(f"close {code}", close(code, reason), answers, closes=True)


def _bare_close(random: Random, _task_id: str) -> Case:
    payload = random.choice((b"", b"\x03"))
    return Case("close without a code", frame(CLOSE, payload), frozenset({NORMAL, PROTOCOL}), closes=True)


def _close_and_go_on(random: Random, task_id: str) -> Case:
    data = close(1000) + frame(TEXT, _payload(random, task_id)) + struct.pack("!H", 0x8800)
    return Case("frames after a close", data, frozenset({NORMAL, PROTOCOL}), closes=True)


_KINDS: dict[Callable[[Random, str], Case], int] = {
    _any_order: 6,
    _whole_task: 3,
    _next_text: 10,
    _tree: 24,
    _bytes: 10,
    _noise: 2,
    _two_at_once: 3,
    _binary: 2,
    _fragments: 6,
    _fragments_out_of_order: 2,
    _endless_fragments: 1,
    _unmasked: 2,
    _reserved_bits: 2,
    _reserved_opcode: 2,
    _control: 2,
    _wrong_width: 2,
    _too_long: 2,
    _cut_off: 2,
    _shorter_than_said: 2,
    _noise_on_the_wire: 2,
    _heartbeats: 4,
    _close: 3,
    _bare_close: 1,
    _close_and_go_on: 1,
}
"""How often each kind is drawn."""
