"""What is stopped at the gates: every wait of a task, a lease and a pool."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from gates import LATENCY, later
from harness import VOICE

from speechpool.errors import Unauthorized
from speechpool.protocol import Audio
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, RunTask
from speechpool.protocol.inference import Inference
from speechpool.transport import Refusal

TEXT = "Hello there."


# ---------------------------------------------------------------------------------------- what is cancelled


async def synthesize(one):
    assert (await one.pool.synthesize(TEXT, VOICE)).audio == TEXT.encode()


async def task(one):
    async with one.pool.task(VOICE) as task:
        await task.send("Hello ")
        await task.flush()
        await task.send("there.")
        await task.finish()
        heard = b"".join([event.data async for event in task if hasattr(event, "data")])
    assert heard == b"Hello there."


async def task_that_is_read_in_batches(one):
    """As the threads of `SpeechPool` read."""
    heard = []
    async with one.pool.task(VOICE) as task:
        await task.send(TEXT)
        await task.finish()
        while batch := await task._ready():
            heard += batch
    assert Audio(TEXT.encode()) in heard


async def task_with_a_sink(one):
    heard = []
    async with one.pool.task(VOICE, sink=heard.append) as task:
        await task.send(TEXT)
        await task.finish()
    assert TEXT.encode() in heard


async def task_that_waits(one):
    async with one.pool.task(VOICE) as task:
        await task.send(TEXT)
        await task.finish()
        await task.wait()


async def task_that_is_left(one):
    async with one.pool.task(VOICE) as task:
        await task.send(TEXT)
        await asyncio.sleep(2 * LATENCY)
    await asyncio.sleep(2 * LATENCY)  # the server has not confirmed


async def task_that_cancels(one):
    async with one.pool.task(VOICE) as task:
        await task.send(TEXT)
        await asyncio.sleep(2.5 * LATENCY)
        await task.cancel()
        assert [event async for event in task] == []
        await asyncio.sleep(2 * LATENCY)


async def stream(one):
    async with one.pool.stream(TEXT, VOICE) as stream:
        assert b"".join([chunk async for chunk in stream]) == TEXT.encode()


async def stream_without_a_block(one):
    assert b"".join([chunk async for chunk in one.pool.stream(TEXT, VOICE)]) == TEXT.encode()


async def tokens():
    for token in ("Hello ", "there."):
        await asyncio.sleep(1.5 * LATENCY)
        yield token


async def stream_of_tokens(one):
    async with one.pool.stream(tokens(), VOICE) as stream:
        assert b"".join([chunk async for chunk in stream]) == TEXT.encode()


async def stream_of_pieces(one):
    async with one.pool.stream(iter(["Hello ", "there."]), VOICE) as stream:
        assert b"".join([chunk async for chunk in stream]) == TEXT.encode()


async def send_against_pressure(one):
    text = "a" * 20_000
    async with one.pool.task(VOICE) as task:
        await asyncio.sleep(2 * LATENCY)
        (session,) = one.server.used
        session.connection.pause()
        later(session.connection.resume, steps=6)
        for _ in range(6):
            await task.send(text)
        await task.finish()
        heard = b"".join([event.data async for event in task if hasattr(event, "data")])
    assert len(heard) == 120_000


async def stream_against_pressure(one):
    text = "a" * 20_000

    async def tokens():
        await asyncio.sleep(2.5 * LATENCY)
        (session,) = one.server.used
        session.connection.pause()
        later(session.connection.resume, steps=6)
        for _ in range(6):
            yield text

    async with one.pool.stream(tokens(), VOICE) as stream:
        assert b"".join([chunk async for chunk in stream]) == 6 * text.encode()


SHORT = Inference(text_gap=0.23)
"""A text clock that ends a segment after 0.2 s."""


async def bridged(one, *, meanwhile=None, lease=None):
    async with (lease or one.pool).task(VOICE) as task:
        await task.send("Hello ")
        await asyncio.sleep(0.27)
        if meanwhile is not None:
            meanwhile(one)
            await asyncio.sleep(LATENCY)
        await task.send("there.")
        await task.finish()
        heard = b"".join([event.data async for event in task if isinstance(event, Audio)])
    assert heard == b"Hello there."
    assert len(task.request_ids) == 2


async def bridged_when_its_permit_is_taken(one):
    await bridged(one, meanwhile=permit_taken)


async def bridged_when_its_connection_is_lost(one):
    await bridged(one, meanwhile=lambda one: one.network.cut())


async def bridged_on_a_lease(one):
    async with one.pool.borrow(timeout=5.0) as lease:
        await bridged(one, lease=lease)
        await bridged(one, lease=lease, meanwhile=lambda one: one.network.cut())


async def bridged_stream(one):
    async def tokens():
        yield "Hello "
        await asyncio.sleep(0.27)
        yield "there."

    async with one.pool.stream(tokens(), VOICE) as stream:
        assert b"".join([chunk async for chunk in stream]) == TEXT.encode()


async def lease(one):
    async with one.pool.borrow(timeout=5.0) as lease:
        assert (await lease.synthesize("Hello ", VOICE)).audio == b"Hello "
        async with lease.task(VOICE) as task:
            await task.send("there.")
            await task.finish()
            async for _ in task:
                pass
        assert [chunk async for chunk in lease.stream(TEXT, VOICE)] == [TEXT.encode()]


async def lease_that_waits_its_turn(one):
    async with one.pool.borrow(timeout=5.0) as lease:
        async with lease.task(VOICE) as task:
            await task.send("never")
            await asyncio.sleep(2.5 * LATENCY)
        assert (await lease.synthesize(TEXT, VOICE)).audio == TEXT.encode()  # when the first has ended on the wire


async def lease_that_is_renewed(one):
    async with one.pool.borrow(timeout=5.0) as lease:
        one.network.cut()
        await asyncio.sleep(LATENCY)
        assert (await lease.synthesize(TEXT, VOICE)).audio == TEXT.encode()


async def task_on_the_lease_of_another(one):
    assert (await one.lease.synthesize(TEXT, VOICE)).audio == TEXT.encode()


async def lease_at_hand(one):
    lease = one.pool.try_borrow()
    assert lease is not None
    try:
        assert (await lease.synthesize(TEXT, VOICE)).audio == TEXT.encode()
    finally:
        lease.leave()


async def wait_ready(one):
    await one.pool.resize(3)
    await one.pool.wait_ready()
    assert one.pool.stats.idle == 3


async def drain(one):
    await one.pool.drain()


async def close(one):
    await one.pool.close()


async def close_gently(one):
    await one.pool.close(drain=1.0)


async def enter(one):
    async with one.pool as pool:
        assert (await pool.synthesize(TEXT, VOICE)).audio == TEXT.encode()


async def enter_and_be_refused(one):
    with pytest.raises(Unauthorized):
        await one.pool.__aenter__()


# ---------------------------------------------------------------------------------------- what goes on around it


async def quiet(one):
    """Nothing."""


def permit_taken(one):
    """Another task has the only permit, and settles it in a moment."""
    permit = one.quota.request(one.pool._host._account, VOICE.model)
    assert permit.granted
    later(permit.settle, "completed")


def connection_taken(one):
    """Another one has the only connection, and returns it in a moment."""
    lease = one.pool.try_borrow()
    later(lease.leave)


def both_taken(one):
    permit_taken(one)
    lease = one.pool.try_borrow()
    later(lease.leave, steps=4)


async def place_taken(one):
    """A sibling pool has the only connection that both may have, and returns it in a moment."""
    lease = await one.sibling.borrow().__aenter__()
    later(lease.leave)


def connection_lost_on_the_way(one):
    """It breaks in the turn in which it is handed over."""
    lease = one.pool.try_borrow()

    def lose():
        one.network.cut()
        lease.leave()

    later(lose)


async def lease_of_another(one):
    one.lease = await one.pool.borrow().__aenter__()


async def lease_of_another_that_is_lost(one):
    await lease_of_another(one)
    one.network.cut()
    await asyncio.sleep(LATENCY)


async def works_on(one):
    """The lease of the other one does, at once."""
    assert (await one.lease.synthesize("Works on.", VOICE)).audio == b"Works on."
    one.lease.leave()


def connection_lost_while_taken(one):
    """The one who waits gets a fresh connection instead."""
    lease = one.pool.try_borrow()
    later(one.network.cut)
    later(lease.leave, steps=4)


def breaks(step, action, times):
    """Have the server break the first tasks at one step."""

    def around(one):
        usual, left = one.server.hooks[step], list(range(times))

        def hook(session, instruction):
            if left:
                left.pop()
                asyncio.get_running_loop().call_later(LATENCY, action, session)
                return True
            return usual(session, instruction)

        one.server.hooks[step] = hook

    return around


def cut(session):
    session.connection.abort()


def refuse(session):
    session.fail("Throttling.RateQuota", "try again")


def silent_on_cancel(one):
    """The server confirms nothing: the connection is discarded when the time for that has passed."""
    one.server.hooks[CancelTask] = lambda session, _: True


def refusing(one):
    """The first dial is refused while the others are under way."""
    one.server.refusal = Refusal(401)
    one.paces = iter([1, 3, 3])


async def speaking(one):
    async with one.pool.task(VOICE) as task:
        await task.send(TEXT)
        await task.finish()
        with contextlib.suppress(Exception):
            await task.wait()


def busy(one):
    """Another task runs."""
    one.running = asyncio.ensure_future(speaking(one))


@dataclass
class Scenario:
    """What is stopped, and in which circumstances.

    Attributes:
        victim: The coroutine function that is stopped; it gets the world.
        around: Called before it.
        options: Of the world.
        discards: Why a connection may be closed on the way.
        after: What has to be possible as soon as the victim has ended.
        closes: The victim closes the pool.
    """

    victim: object
    around: object = quiet
    options: dict = field(default_factory=dict)
    discards: set = field(default_factory=set)
    after: object = quiet
    closes: bool = False


SCENARIOS = {
    "synthesize": Scenario(synthesize),
    "permit wait": Scenario(synthesize, permit_taken, {"concurrency": 1}),
    "permit wait, then borrow wait": Scenario(stream, both_taken, {"concurrency": 1}),
    "borrow wait": Scenario(synthesize, connection_taken),
    "borrow wait for a stream": Scenario(stream_of_tokens, connection_taken),
    "borrow wait for a lease": Scenario(lease, connection_taken),
    "borrow wait for one that is lost": Scenario(synthesize, connection_lost_while_taken, discards={"lost"}),
    "borrow wait for a place": Scenario(synthesize, place_taken, {"total": 1}),
    "borrow wait for one that is lost on the way": Scenario(synthesize, connection_lost_on_the_way, discards={"lost"}),
    "borrow wait for a task": Scenario(task, connection_taken),
    "borrow wait for a stream without a block": Scenario(stream_without_a_block, connection_taken),
    "dial wait": Scenario(synthesize, options={"min_size": 0}),
    "task": Scenario(task, options={"concurrency": 2}),
    "task that is read in batches": Scenario(task_that_is_read_in_batches),
    "task with a sink": Scenario(task_with_a_sink),
    "task that waits": Scenario(task_that_waits),
    "task that is left": Scenario(task_that_is_left),
    "task that cancels": Scenario(task_that_cancels),
    "task that cancels without an answer": Scenario(
        task_that_cancels, silent_on_cancel, discards={"cancel not confirmed"}
    ),
    "stream": Scenario(stream),
    "stream without a block": Scenario(stream_without_a_block),
    "stream of tokens": Scenario(stream_of_tokens),
    "stream of pieces": Scenario(stream_of_pieces),
    "send against pressure": Scenario(send_against_pressure),
    "stream against pressure": Scenario(stream_against_pressure),
    "lease": Scenario(lease, options={"concurrency": 1}),
    "lease that waits its turn": Scenario(lease_that_waits_its_turn),
    "lease that is renewed": Scenario(lease_that_is_renewed, discards={"lost"}),
    "task on the lease of another": Scenario(task_on_the_lease_of_another, lease_of_another, after=works_on),
    "task on a lease that is lost": Scenario(
        task_on_the_lease_of_another,
        lease_of_another_that_is_lost,
        discards={"lost"},
        after=works_on,
    ),
    "lease at hand": Scenario(lease_at_hand),
    "replay of a cut start": Scenario(
        synthesize, breaks(RunTask, cut, 1), {"concurrency": 1}, discards={"ConnectionLost", "lost", "made_room"}
    ),
    "replay of a cut text": Scenario(
        stream_of_tokens, breaks(ContinueTask, cut, 2), discards={"ConnectionLost", "lost", "made_room"}
    ),
    "retry pause": Scenario(synthesize, breaks(RunTask, refuse, 2), discards={"Throttling.RateQuota", "made_room"}),
    "replay on a lease": Scenario(lease, breaks(RunTask, cut, 1), discards={"ConnectionLost", "lost", "made_room"}),
    "bridge": Scenario(bridged, options={"dialect": SHORT}),
    "bridge of a stream": Scenario(bridged_stream, options={"dialect": SHORT}),
    "bridge and permit wait": Scenario(bridged_when_its_permit_is_taken, options={"dialect": SHORT, "concurrency": 1}),
    "bridge and renewal": Scenario(
        bridged_when_its_connection_is_lost, options={"dialect": SHORT}, discards={"lost", "made_room"}
    ),
    "bridge on a lease": Scenario(bridged_on_a_lease, options={"dialect": SHORT}, discards={"lost", "made_room"}),
    "pool wait_ready": Scenario(wait_ready),
    "pool drain": Scenario(drain, busy, closes=True),
    "pool close": Scenario(close, busy, closes=True),
    "pool close, gently": Scenario(close_gently, busy, closes=True),
    "pool enter": Scenario(enter, options={"entered": False}, closes=True),
    "pool enter, refused": Scenario(enter_and_be_refused, refusing, {"entered": False, "max_size": 3}, closes=True),
}
