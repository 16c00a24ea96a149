"""The Java SDK's two layers in Python: limits of connections, and an object pool with borrow, return and invalidate.

    speechpool service &
    COSYVOICE_OBJECTPOOL_SIZE=12 DASHSCOPE_CONNECTION_POOL_SIZE=16 python examples/java_style_pool.py

`docs/java.md` says which setting of which layer became what.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

from speechpool import Endpoint, SpeechPool, Voice
from speechpool.limits import LocalQuota, java

VOICE = Voice("cosyvoice-v3-flash", "longanyang")


def speak(pool: SpeechPool, number: int) -> int:
    with pool.borrow(timeout=5.0) as lease:  # borrowObject(5000)
        speech = lease.synthesize(f"This is caller {number}.", VOICE)
        if not speech.audio:
            lease.discard("silent")  # invalidateObject: it is closed, and the pool opens another one
        return len(speech.audio)
    # Leaving the block is returnObject, and invalidateObject where the task has failed.


def main() -> None:
    parser = argparse.ArgumentParser(description="Speak for some callers over a pool that the environment configures.")
    parser.add_argument("--endpoint", default="ws://127.0.0.1:8765", help="the speech server (%(default)s)")
    parser.add_argument("--callers", type=int, default=6, help="how many speak at once (%(default)s)")
    chosen = parser.parse_args()
    # The lower layer, DASHSCOPE_CONNECTION_POOL_SIZE and its kin, bounds all pools of the process without being asked.
    os.environ.setdefault("COSYVOICE_OBJECTPOOL_SIZE", "8")  # else 500, as in the samples of the SDK
    endpoint = Endpoint(chosen.endpoint, api_key=os.getenv("DASHSCOPE_API_KEY", "local"), proxy=java.proxy())
    settings = java.pool_settings("cosyvoice")
    quota = LocalQuota(rate=3)  # task starts a second; a Java program has to see to that itself
    with SpeechPool(endpoint, settings=settings, deadlines=java.deadlines(), quota=quota) as pool:
        with ThreadPoolExecutor(chosen.callers) as callers:
            sizes = list(callers.map(lambda number: speak(pool, number), range(chosen.callers)))
        print(f"bytes of audio: {sizes}")
        stats = pool.stats
        print(f"active {stats.borrowed}, idle {stats.idle}, max total {stats.max_size}; opened {stats.opened}")


if __name__ == "__main__":
    main()
