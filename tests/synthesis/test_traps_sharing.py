"""Many tasks on few connections: whose audio it is, who may use what, and what each is told of its own connection."""

import asyncio
import random

import pytest
from harness import VOICE, pool_and_server, run, run_virtual, settle

from speechpool import Audio, LeaseError, PoolTimeout
from speechpool.pool.invariants import check
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, State


def hold(session, instruction):
    return True


# ------------------------------------------------------------------------------------------ whose audio it is
def in_small_pieces(session, instruction):
    """Speak a text word by word, a turn of the loop each, so that a cancel falls anywhere in between."""
    loop, task_id = asyncio.get_running_loop(), session.protocol.task_id
    words = instruction.text.split()

    def speak(at):
        if session.protocol.task_id != task_id or session.protocol.state is State.IDLE:
            return
        if at == 0:
            session.begin(instruction.text)
        if at < len(words):
            session.audio(f"{words[at]} ".encode())
            loop.call_soon(speak, at + 1)
        else:
            session.characters += 1
            session.end(instruction.text)
            session.spoken()

    session.spoken = lambda: setattr(session, "silent", True)
    session.silent = False
    loop.call_soon(speak, 0)
    return True


def finish_when_spoken(session, _):
    def finish():
        if session.silent:
            session.send(session.protocol.finished(session.characters))

    if session.silent:
        finish()
    else:
        session.spoken = finish
        session.silent = True
    return True


def late_then_end(session, _):
    """Audio that was under way when the cancel came."""
    for _ in range(random.randrange(3)):
        session.audio(b"late")


def random_cancels(total, connections, callers):
    """Run tasks whose audio names them; each second one is cancelled, at a random moment and in a random way."""
    cancelled = completed = 0

    async def one(pool, number):
        words = [f"{number}-{word}" for word in range(4)]
        text = " ".join(words) + "."
        expected = b"".join(f"{word} ".encode() for word in text.split())
        got = bytearray()

        async def listen():
            async with pool.stream(text, VOICE) as stream:
                async for chunk in stream:
                    got.extend(chunk)
                    if leave_at == len(got) // len(words[0]):
                        await stream.cancel()

        leave_at = random.randrange(1, 6) if number % 4 == 1 else None
        caller = asyncio.ensure_future(listen())
        if number % 4 == 3:
            for _ in range(random.randrange(24)):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
        else:
            await caller
        assert expected.startswith(bytes(got)), (number, bytes(got))
        assert number % 2 or bytes(got) == expected
        return bytes(got) == expected

    async def caller(pool, numbers):
        nonlocal cancelled, completed
        for number in numbers:
            if await one(pool, number):
                completed += 1
            else:
                cancelled += 1

    async def main():
        async with pool_and_server(max_size=connections, retry=0) as (pool, server):
            server.hooks[ContinueTask] = in_small_pieces
            server.hooks[FinishTask] = finish_when_spoken
            server.hooks[CancelTask] = late_then_end
            numbers = iter(range(total))
            await asyncio.gather(*(caller(pool, numbers) for _ in range(callers)))
            await settle()
            stats, totals = pool.stats, pool.telemetry.lifetime()
            check(pool._pool._core)
            assert (stats.idle, stats.borrowed, stats.waiting) == (connections, 0, 0)
            assert stats.opened == connections, stats.discarded  # no cancel cost a connection
            assert totals.failed == 0
            assert server.all_idle()
            assert server.refused == []

    random.seed(37)
    run(main())
    assert completed + cancelled == total
    assert completed >= total // 2
    assert cancelled >= total // 5


def test_t37_audio_of_a_cancelled_task_is_never_heard_by_another():
    random_cancels(2000, connections=4, callers=16)


@pytest.mark.slow
def test_t37_nor_in_a_hundred_thousand_tasks():
    random_cancels(100_000, connections=16, callers=64)


# ------------------------------------------------------------------------------------------ one user at a time
def test_t51_text_that_two_senders_send_at_once_arrives_whole_and_in_the_order_of_the_calls():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[ContinueTask] = hold
            pieces = [f"{number:02} " + "x" * 5000 + ". " for number in range(30)]
            async with pool.task(VOICE) as task:
                await settle()
                # Slower than the senders: they wait for the peer in the middle of their calls.
                server.sessions[0].connection.pause()
                senders = [asyncio.create_task(task.send(piece)) for piece in pieces]
                await settle()
                assert not all(sender.done() for sender in senders)
                server.sessions[0].connection.resume()
                await asyncio.gather(*senders)
                await settle()
                assert server.texts == pieces

    run(main())


def test_t51_a_task_a_lease_and_a_pool_are_each_entered_once_even_at_the_same_time():
    async def main():
        async with pool_and_server(max_size=2) as (pool, server):
            task, lease = pool.task(VOICE), pool.borrow()
            async with pool.borrow(), pool.borrow() as second:  # so that entering has to wait
                entering = [asyncio.create_task(one.__aenter__()) for one in (task, task, lease, lease)]
                await settle()
                second.leave()
                await settle()
            results = await asyncio.gather(*entering, return_exceptions=True)
            assert [type(result).__name__ for result in results] == [
                "SpeechTask", "LeaseError", "SpeechLease", "LeaseError"
            ]  # fmt: skip
            assert pool.stats.borrowed == 2
            assert len(server.tasks) == 1
            await task.cancel()
            lease.leave()
            await settle()
            assert (pool.stats.idle, pool.stats.opened) == (2, 2)

    run(main())


def test_t51_a_lease_that_is_left_while_it_waits_for_its_connection_keeps_none():
    async def main():
        async with pool_and_server(max_size=1) as (pool, _):
            waiting = pool.borrow()
            async with pool.borrow():
                entering = asyncio.create_task(waiting.__aenter__())
                await settle()
                waiting.leave()
            with pytest.raises(LeaseError, match="was left"):
                await entering
            assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)

    run(main())


def test_t51_a_lease_that_did_not_get_its_connection_may_be_entered_again():
    async def main():
        async with pool_and_server(max_size=1, borrow_timeout=0.5) as (pool, _):
            lease = pool.borrow()
            async with pool.borrow():
                with pytest.raises(PoolTimeout):
                    await lease.__aenter__()
            async with lease:
                assert (await lease.synthesize("Hello.", VOICE)).audio == b"Hello."

    run_virtual(main())


def test_t51_many_tasks_at_once_on_one_lease_run_one_after_another_or_not_at_all():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[FinishTask] = hold
            async with pool.borrow() as lease:
                texts = [f"Task {number}." for number in range(5)]
                callers = [asyncio.create_task(lease.synthesize(text, VOICE)) for text in texts]
                await settle()
                assert len(server.tasks) == 1
                (session,) = server.used
                session.send(session.protocol.finished(7))
                results = await asyncio.gather(*callers, return_exceptions=True)
                assert results[0].audio == b"Task 0."
                assert [type(result) for result in results[1:]] == [LeaseError] * 4
                assert server.texts == ["Task 0."]
                server.hooks.clear()
                assert (await lease.synthesize("Next.", VOICE)).audio == b"Next."

    run(main())


# ------------------------------------------------------------------------------------------ what each is told
def test_t81_each_of_a_hundred_at_once_is_told_the_truth_about_its_own_connection():
    dials = {}  # the server's session: how long its dial took

    async def main():
        async with pool_and_server(max_size=50, min_size=20, max_opening=7, retry=0, borrow_timeout=60.0) as (
            pool, server,
        ):  # fmt: skip
            random.seed(81)
            connect, clock = pool._pool._jobs._connector._dial, asyncio.get_running_loop().time

            async def slowly(*arguments, **options):
                took = random.uniform(0.2, 0.8)
                await asyncio.sleep(took)
                connection = await connect(*arguments, **options)
                dials[server.sessions[-1]] = (clock() - took, clock())
                return connection

            pool._pool._jobs._connector._dial = slowly

            def speak_later(session, _):
                number = session.server.tasks.index(
                    next(t for t in server.tasks if t.task_id == session.protocol.task_id)
                )
                asyncio.get_running_loop().call_later(0.5 + number / 100, session.send, session.protocol.finished(3))
                return True

            server.hooks[FinishTask] = speak_later
            carried = set()

            async def one():
                entered = clock()
                async with pool.stream("Hi.", VOICE) as stream:
                    begun = clock()
                    session = next(s for s in server.sessions if s.connection._peer is stream._connection.transport)
                    first, report = session not in carried, stream.report
                    carried.add(session)
                    async for _ in stream:
                        pass
                return entered, begun, first, dials.get(session), stream.report, report

            results = await asyncio.gather(*(one() for _ in range(100)))
            kinds = {"reused": 0, "dialled": 0}
            for entered, begun, first, dial, report, early in results:
                assert early.reused is report.reused
                fresh = dial is not None and first and begun == pytest.approx(dial[1])
                assert report.reused is not fresh
                assert report.connect == pytest.approx(dial[1] - max(dial[0], entered) if fresh else 0.0)
                assert report.queue + report.connect == pytest.approx(begun - entered)
                kinds["dialled" if fresh else "reused"] += 1
            assert kinds["dialled"] >= 10
            assert kinds["reused"] >= 50
            totals = pool.telemetry.lifetime()
            assert totals.completed == 100
            assert (totals.connected, totals.reused) == (100, kinds["reused"])

    run_virtual(main())


# ------------------------------------------------------------------------------------------ one reader that does not read
def test_t83_one_of_five_that_does_not_read_holds_up_none_of_the_others_and_a_bounded_amount():
    piece, pieces = b"x" * 16_384, 128  # 2 MiB each

    async def main():
        async with pool_and_server(max_size=5, max_waiting=0) as (pool, server):

            def flood(session, instruction):
                async def speak():
                    session.begin(instruction.text)
                    for _ in range(pieces):
                        session.audio(piece)
                        await session.connection.drain()
                    session.end(instruction.text)
                    session.send(session.protocol.finished(7))

                server.speaking.append(asyncio.create_task(speak()))
                return True

            server.speaking = []
            server.hooks[ContinueTask] = flood
            server.hooks[FinishTask] = hold
            async with pool.task(VOICE) as slow:
                await slow.send("Flood.")
                await slow.finish()
                for _ in range(2):
                    results = await asyncio.gather(*(pool.synthesize(f"Task {n}.", VOICE) for n in range(4)))
                    assert [len(result.audio) for result in results] == [len(piece) * pieces] * 4
                queued = sum(len(event.data) for event in slow._queue if isinstance(event, Audio))
                assert queued == slow.audio_bytes < 512 * 1024
                heard = 0
                async for event in slow:
                    heard += len(event.data) if isinstance(event, Audio) else 0
                    if heard == 20 * len(piece):
                        await settle(300)  # and once more in the middle
                        assert slow.audio_bytes - heard < 512 * 1024
            assert heard == len(piece) * pieces
            assert slow.outcome == "completed"
            await settle()
            assert (pool.stats.idle, pool.stats.opened) == (5, 5)

    run(main())
