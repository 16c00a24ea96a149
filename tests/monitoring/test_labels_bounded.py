"""However many words a peer or a caller invents, a label has a bounded number of values."""

import asyncio

from monitored import KEY, running_service

from speechpool import AsyncSpeechPool, Endpoint
from speechpool.monitoring.catalogue import METRICS
from speechpool.monitoring.snapshot import Source

MOST = 65
"""64 words, and `other`."""


def test_reasons_and_codes_are_bounded():
    async def main():
        async with running_service() as service:
            async with AsyncSpeechPool(Endpoint(service.url, api_key=KEY), max_size=2) as pool:
                for number in range(80):
                    async with pool.borrow() as lease:
                        lease.discard(f"Word{number}")
                    pool.telemetry.task_started()
                    pool.telemetry.task_ended("failed", asyncio.get_running_loop().time(), error=f"Code{number}")
                    pool.telemetry.segment_retried(f"Code{number}")
                return Source(pool).take()

    snapshot = asyncio.run(main())
    assert sum(snapshot.stats.discarded.values()) == 80
    counts = {metric.name: len(list(metric.read(snapshot))) for metric in METRICS}
    assert {name: count for name, count in counts.items() if count > MOST} == {}
    assert counts["speechpool_task_errors_total"] == counts["speechpool_retries_total"] == MOST
