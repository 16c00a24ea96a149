"""Too much is asked: what the provider carries is done, everybody else is told so at once, and retries stay few."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from harness import VOICE, Server, pool_and_server, run_virtual

from shedding_kit import ASKED, CARRIED, WARM_UP, Callers, WatchedQuota, holds
from speechpool import AsyncSpeechPool, ConnectionLost, Endpoint, Shed, Voice
from speechpool.limits import LocalQuota
from speechpool.protocol.cosyvoice import FinishTask, RunTask
from speechpool.testing.memory import MemoryNetwork

PATIENCE = 3.0


class Throttling:
    """A provider that starts so many tasks a second, `burst` of them at once after a pause, and takes a moment for each."""

    def __init__(self, server, burst, seed):
        self.loop, self.burst, self.chance = asyncio.get_running_loop(), burst, random.Random(seed)
        self.tokens, self.filled = burst, self.loop.time()
        self.answers = []  # (time, throttled)
        server.hooks[RunTask] = self.start
        server.hooks[FinishTask] = self.finish

    def start(self, session, instruction):
        now = self.loop.time()
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * CARRIED)
        self.filled = now
        throttled = self.tokens < 1
        self.tokens -= not throttled
        self.answers.append((now, throttled))
        answer = self.refuse if throttled else session.behave
        self.loop.call_later(self.chance.uniform(0.02, 0.06), answer, *([session] if throttled else [instruction]))
        return True

    def refuse(self, session):
        session.fail("Throttling.RateQuota", "Requests rate limit exceeded.")

    def finish(self, session, instruction):
        self.loop.call_later(self.chance.uniform(0.3, 0.7), session.behave, instruction)
        return True

    def share_throttled(self, since):
        late = [throttled for when, throttled in self.answers if when >= since]
        return sum(late) / len(late)


@pytest.mark.parametrize("burst", [20, 2])
def test_a_provider_that_throttles_is_used_to_the_full_and_the_rest_is_shed_at_once(burst):
    async def main():
        clock = asyncio.get_running_loop().time
        quota = WatchedQuota(clock)
        async with pool_and_server(max_size=40, quota=quota, borrow_timeout=PATIENCE) as (pool, server):
            provider = Throttling(server, burst, seed=burst)
            callers = Callers(lambda: pool.synthesize("Hello.", VOICE), quota, clock)
            since = await callers.ask(2 * WARM_UP)
            figures = callers.figures(since, provider.share_throttled(since))
            print(f"\nburst of {burst}: {figures}")  # noqa: T201  # figures to be quoted, with -s
            holds(figures)
            rate = pool.report().lifetime.error_rate
            assert rate.completed + rate.failed + rate.shed == 2 * WARM_UP * ASKED
            assert rate.completed == len(callers.completed)
            assert rate.shed >= figures.shed
            (state,) = quota.states()
            assert state.shed >= figures.shed
            assert 0.7 * CARRIED < state.rate < 1.5 * CARRIED

    run_virtual(main())


def test_a_pool_without_a_quota_sheds_tasks_too_and_counts_them_as_shed():
    async def main():
        async with pool_and_server(max_size=2, borrow_timeout=3.0, max_waiting=1000) as (pool, server):
            loop = asyncio.get_running_loop()
            server.hooks[FinishTask] = lambda session, finish: bool(loop.call_later(1.0, session.behave, finish))
            tasks = []
            for _ in range(100):
                tasks.append(asyncio.create_task(pool.synthesize("Hello.", VOICE)))
                await asyncio.sleep(0.1)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            shed = [one for one in results if isinstance(one, Shed)]
            assert all(one.predicted_wait > 1 for one in shed)
            rate = pool.report().lifetime.error_rate
            assert rate.shed == len(shed) == pool.stats.shed > 40
            assert rate.completed >= 20

    run_virtual(main())


# ------------------------------------------------------------------------------------ one budget of retries
OTHER = Voice("cosyvoice-v2", "longxiaochun_v2", format="pcm", sample_rate=16000)


async def pools_of_a_sick_provider(stack, quotas):
    """A pool for each quota, and a server that breaks every task."""
    network = MemoryNetwork()
    server = await Server(network).start()
    server.hooks[RunTask] = lambda session, _: session.connection.abort() or True
    endpoint = Endpoint(server.listener.url, api_key="canary-key")
    options = {"max_size": 1, "retry": 100, "heartbeat": None, "dial": network.connect}
    pools = [await stack.enter_async_context(AsyncSpeechPool(endpoint, quota=quota, **options)) for quota in quotas]
    return pools, server


async def retries(pool, server, voice=VOICE, tasks=3):
    before = len(server.tasks)
    for _ in range(tasks):
        with pytest.raises(ConnectionLost):
            await pool.synthesize("Hello.", voice)
    return len(server.tasks) - before - tasks


def test_pools_that_share_a_quota_share_the_retries_of_an_account_and_model():
    async def main():
        quota = LocalQuota(clock=asyncio.get_running_loop().time)
        async with AsyncExitStack() as stack:
            (one, two), server = await pools_of_a_sick_provider(stack, [quota, quota])
            assert await retries(one, server) == 10
            assert await retries(two, server) <= 1  # a fifth of a retry for each task
            assert await retries(two, server, OTHER) == 10
            budget = quota.retry_budget(one._host._account, VOICE.model)
            assert budget is one._host.budget(VOICE.model) is two._host.budget(VOICE.model)
            assert budget.refused == 6
            assert one._host.budget(OTHER.model) is not budget

    run_virtual(main())


def test_pools_without_a_quota_have_a_budget_for_each_model():
    async def main():
        async with AsyncExitStack() as stack:
            (one, two), server = await pools_of_a_sick_provider(stack, [None, None])
            assert await retries(one, server) == 10
            assert await retries(one, server, OTHER) == 10
            assert await retries(one, server) <= 1
            assert await retries(two, server) == 10

    run_virtual(main())
