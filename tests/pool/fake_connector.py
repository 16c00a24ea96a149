"""Connections without a network: a test says how long a dial takes and how it ends."""

from __future__ import annotations

import asyncio
import itertools

from speechpool.errors import ConnectFailed
from speechpool.pool import Pool
from speechpool.pool.core import UNKNOWN
from speechpool.settings import PoolSettings


class Fake:
    """One connection."""

    def __init__(self, number, lost):
        self.number = number
        self.lost = lost
        self.open = True  # usable
        self.state = "open"
        self.gone = asyncio.Event()

    def __repr__(self):
        return f"<Fake {self.number} {self.state}>"

    def die(self):
        """The server ends it."""
        self.open = False
        self.state = "gone"
        self.gone.set()
        self.lost(self)


class FakeConnector:
    """Opens Fakes. `plan` answers each dial: None (it opens) or an exception."""

    endpoint = "wss://fake.test/v1"

    def __init__(self, *, dial_time=0.0, close_time=0.0, plan=lambda number: None):
        self.dial_time = dial_time
        self.close_time = close_time  # None: the peer never answers a close
        self.plan = plan
        self.numbers = itertools.count(1)
        self.made = []
        self.dials = []  # when
        self.dialling = self.most_dialling = self.most_alive = 0

    @property
    def alive(self):
        return [fake for fake in self.made if fake.state != "gone"]

    async def open(self, lost):
        number = next(self.numbers)
        self.dials.append(asyncio.get_running_loop().time())
        self.dialling += 1
        self.most_dialling = max(self.most_dialling, self.dialling)
        try:
            if self.dial_time is None:
                await asyncio.get_running_loop().create_future()
            elif self.dial_time:
                await asyncio.sleep(self.dial_time)
            error = self.plan(number)
            if error is not None:
                raise error
        finally:
            self.dialling -= 1
        fake = Fake(number, lost)
        self.made.append(fake)
        self.most_alive = max(self.most_alive, len(self.alive))
        return fake

    def usable(self, fake):
        return fake.open

    def close(self, fake):
        fake.open = False
        if fake.state == "open":
            fake.state = "closing"
            if self.close_time is not None:
                asyncio.get_running_loop().call_later(self.close_time, self._gone, fake)

    def abort(self, fake):
        self._gone(fake)

    def _gone(self, fake):
        fake.open = False
        fake.state = "gone"
        fake.gone.set()

    async def wait_closed(self, fake):
        await fake.gone.wait()


class Down:
    """A plan: the server is away until told otherwise."""

    def __init__(self, error=None):
        self.down = True
        self.error = error or (lambda: ConnectFailed("connection refused"))

    def __call__(self, number):
        return self.error() if self.down else None


def make_pool(
    connector,
    *,
    connect_timeout=10.0,
    on_borrowed=None,
    name="test",
    jitter=0.5,
    limits=None,
    host=None,
    profile=UNKNOWN,
    **settings,
):
    """Return a pool that is not opened."""
    return Pool(
        connector,
        PoolSettings(**settings),
        name=name,
        connect_timeout=connect_timeout,
        on_borrowed=on_borrowed,
        random=lambda: jitter,
        limits=limits,
        host=host,
        profile=profile,
    )


async def open_pool(connector=None, **settings):
    """Return a pool whose floor is open, and its connector."""
    connector = connector or FakeConnector()
    pool = make_pool(connector, **settings)
    await pool.open()
    await pool.wait_ready()
    return pool, connector


async def steps(count):
    """Let the loop make some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def consistent(pool):
    """Check the heart of a pool."""
    from speechpool.pool.invariants import check

    check(pool._core)
