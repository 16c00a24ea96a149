"""The report of a lease that is held too long: where it was borrowed, and where its holder is now."""

import asyncio
import sys

from fake_connector import open_pool, steps

from speechpool.pool import stacks
from speechpool.testing.clock import run


async def holds(pool, event):
    lease = await pool.borrow()
    await event.wait()  # the holder is here
    lease.return_()


async def holds_elsewhere(pool, event):
    lease = await borrowed(pool)
    await asyncio.shield(event.wait())  # this one is here
    lease.return_()


async def borrowed(pool):
    return await pool.borrow()


async def first_way(pool, event):
    await holds(pool, event)


async def both_ways(pool, event, second):
    if second:
        await holds(pool, event)  # by the second way
    else:
        await holds(pool, event)  # by the first way


def reports(main, count):
    """What is said about the first `count` leases of a pool, in the order of their being borrowed."""

    async def all_of_it():
        pool, _ = await open_pool(max_size=5)
        event = asyncio.Event()
        tasks = await main(pool, event)
        await steps(3)
        slots = sorted((slot for slot in pool._core.slots if slot.note), key=lambda slot: slot.opened_at)
        said = [stacks.holders(slot.note, asyncio.get_running_loop()) for slot in slots]
        event.set()
        await asyncio.gather(*tasks)
        await pool.close()
        return said

    said = run(all_of_it())
    assert len(said) == count
    return said


def test_t52_the_holder_is_found_and_shown_where_it_is_now():
    async def main(pool, event):
        return [asyncio.create_task(holds(pool, event), name="forgetful"), asyncio.create_task(event.wait())]

    (said,) = reports(main, 1)
    assert said.startswith("Its holder is now task 'forgetful' at:\n")
    assert "await event.wait()  # the holder is here" in said
    assert "in wait" in said  # what it waits in
    assert "pool.borrow" not in said


def test_t52_two_leaking_tasks_are_told_apart_by_what_they_run():
    async def main(pool, event):
        return [
            asyncio.create_task(first_way(pool, event), name="one"),
            asyncio.create_task(holds_elsewhere(pool, event), name="other"),
        ]

    said = reports(main, 2)
    assert any("task 'one'" in each and "# the holder is here" in each for each in said)
    assert any("task 'other'" in each and "# this one is here" in each for each in said)


def test_t52_and_by_the_line_through_which_they_came():
    async def main(pool, event):
        return [
            asyncio.create_task(both_ways(pool, event, second=False), name="first"),
            asyncio.create_task(both_ways(pool, event, second=True), name="second"),
        ]

    said = reports(main, 2)
    assert any("task 'first'" in each and "# by the first way" in each and "second" not in each for each in said)
    assert any("task 'second'" in each and "# by the second way" in each and "first" not in each for each in said)


def test_t52_of_many_alike_two_are_shown_and_who_still_waits_for_a_connection_is_none():
    async def main(pool, event):
        return [asyncio.create_task(holds(pool, event), name=f"task {number}") for number in range(9)]

    said = reports(main, 5)
    assert said[0].startswith("Its holder is one of 5 tasks, e.g. now task ")
    assert said[0].count("# the holder is here") == 2


def test_t52_a_holder_that_has_ended_is_not_found():
    kept = []

    async def keeps(pool):
        kept.append(await pool.borrow())

    async def main(pool, event):
        await asyncio.create_task(keeps(pool))

        async def give_back():
            await event.wait()
            kept.pop().return_()

        return [asyncio.create_task(give_back())]

    (said,) = reports(main, 1)
    assert said == "None of the 2 tasks looks like its holder: that one has ended, or is a thread"


def test_a_report_looks_at_a_bounded_number_of_tasks(monkeypatch):
    monkeypatch.setattr(stacks, "_MOST_TASKS", 3)
    looked = []
    monkeypatch.setattr(stacks, "_frames", lambda task: looked.append(task) or [])

    async def main(pool, event):
        return [asyncio.create_task(holds(pool, event)) for _ in range(5)]

    reports(main, 5)
    assert len(looked) == 5 * 3


def test_t52_a_lease_held_too_long_is_reported_with_both_stacks(caplog):
    async def main():
        pool, _ = await open_pool(max_size=2, leak_after=30.0)
        event = asyncio.Event()
        leaking = asyncio.create_task(holds(pool, event), name="leaking")
        await asyncio.sleep(300)
        event.set()
        await leaking
        await pool.close()

    run(main())
    (report,) = [record.getMessage() for record in caplog.records if "leak_after" in record.getMessage()]
    before, after = report.split("Its holder is now task 'leaking' at:")
    assert "lease = await pool.borrow()" in before
    assert "await event.wait()  # the holder is here" in after


def test_t52_what_is_shown_of_the_borrower_is_its_own_code():
    notes = []

    async def main(pool, event):
        lease = await borrowed(pool)
        notes.append(lease._slot.note)
        lease.return_()
        return []

    reports(main, 1)
    text = stacks.render(notes[0])
    assert "return await pool.borrow()" in text
    assert "asyncio" not in text.replace("create_task", "")


def test_no_frame_and_no_local_variable_is_kept():
    class Precious:
        pass

    precious = Precious()
    before = sys.getrefcount(precious)
    stack = stacks.capture(1)
    assert sys.getrefcount(precious) == before
    assert all(hasattr(code, "co_code") and isinstance(lasti, int) for code, lasti in stack)
