"""Several pools under one bound of connections, in any interleaving, on a clock that only the test moves.

The cores of the pools and the ledger are the real ones; the world is a perfect engine for all of them. A wake-up is a
letter that arrives later, or never before something else has happened.
"""

from __future__ import annotations

import dataclasses
import math

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speechpool.limits import UPKEEP, Backoff, ConnectionLimits
from speechpool.pool.core import Phase
from speechpool.pool.invariants import check
from speechpool.pool.limited import WARM_CREDIT, LimitedCore
from speechpool.pool.slot import Refusal, SlotState
from speechpool.pool.waiting import BULK, INTERACTIVE, Waiter
from speechpool.settings import PoolSettings

Which = st.integers(0, 1_000_000)  # which of the things in question; taken modulo their number
HOSTS = ("a", "b")


def pick(things, which):
    return list(things)[which % len(things)]


@st.composite
def pool_settings(draw):
    max_size = draw(st.integers(1, 5))
    return PoolSettings(
        max_size=max_size,
        min_size=draw(st.none() | st.integers(0, max_size)),
        max_opening=draw(st.integers(1, 3)),
        max_replacing=draw(st.integers(1, 2)),
        outage_after=draw(st.none() | st.just(1.0)),
        overflow=draw(st.sampled_from(["wait", "wait", "fail", "grow"])),
        idle_timeout=draw(st.none() | st.just(7.0)),
        max_lifetime=draw(st.none() | st.just(20.0)),
        leak_after=None,
        open_backoff_cap=1.0,
        open_backoff_idle_cap=4.0,
    )


class PoolOfOne:
    """What a perfect engine knows of one pool."""

    def __init__(self, world, settings, host):
        self.world, self.host = world, host
        self.places = world.limits.places(host)
        self.share = self.places._share
        self.core = LimitedCore(settings, Backoff(0.1, 4.0, random=lambda: 0.5), places=self.places)
        self.dialling, self.closing, self.waiting = [], [], []
        self.held = {}
        self.places.join(self.core.spare, lambda: world.mail.setdefault(self))
        self.do(self.core.start(world.now))

    @property
    def sockets(self):
        return len(self.dialling) + len(self.closing) + len(self.held) + len(self.core.idle)

    def do(self, actions):
        for action in actions:
            getattr(self, f"do_{type(action).__name__.lower()}")(action)
        self.world.count()

    def do_open(self, action):
        self.dialling.append(action.slot)

    def do_abandon(self, action):
        assert action.slot in self.dialling

    def do_close(self, action):
        if action.reason == "evicted":
            standing = len(self.core.slots) - self.core.closing
            assert standing >= self.share.kept, "a connection that its pool keeps was taken away"
        assert action.slot not in self.held
        self.closing.append(action.slot)

    def do_abort(self, action):
        assert action.slot.state is SlotState.GONE
        if action.slot in self.closing:
            self.closing.remove(action.slot)
        else:
            del self.held[action.slot]

    def do_handover(self, action):
        waiter, slot = action.waiter, action.slot
        assert slot not in self.held, "two owners"
        for other in self.waiting:
            if other is not waiter and (other.rank, other.fresh) == (waiter.rank, waiter.fresh):
                assert other.serial > waiter.serial, "first come, first served"
        self.waiting.remove(waiter)
        self.held[slot] = slot.use

    def do_fail(self, action):
        self.waiting.remove(action.waiter)
        if action.reason is Refusal.TIMEOUT:
            assert action.waiter.deadline <= self.world.now


class World(RuleBasedStateMachine):
    """Two to four pools on two hosts, and the bound that they share."""

    @initialize(
        settings=st.lists(pool_settings(), min_size=2, max_size=4),
        total=st.none() | st.integers(1, 7),
        per_host=st.none() | st.integers(1, 5),
    )
    def begin(self, settings, total, per_host):
        if total is None and per_host is None:
            total = 4
        self.now = 100.0
        self.limits = ConnectionLimits(total, per_host)
        self.ledger = self.limits._ledger
        self.mail = {}  # pools that were woken and have not looked
        self.pools = []
        for number, each in enumerate(settings):
            self.pools.append(PoolOfOne(self, each, HOSTS[number % 2]))

    def count(self):
        """After every single step of any pool: the bounds hold for what is really there."""
        for host in HOSTS:
            sockets = sum(pool.sockets for pool in self.pools if pool.host == host)
            assert sockets <= self.ledger.per_host, "more connections to a host than it may have"
        assert sum(pool.sockets for pool in self.pools) <= self.ledger.total, "more connections than all may have"

    def which_have(self, what):
        return [pool for pool in getattr(self, "pools", ()) if getattr(pool, what)]

    # Events

    @rule(
        which=Which,
        count=st.integers(1, 3),
        rank=st.sampled_from([INTERACTIVE, INTERACTIVE, BULK]),
        fresh=st.sampled_from([False, False, False, True]),
        patience=st.sampled_from([0.5, 3.0, math.inf, math.inf]),
    )
    def borrow(self, which, count, rank, fresh, patience):
        pool = pick(self.pools, which)
        for _ in range(count):
            waiter = Waiter(self.now, self.now + patience, rank=rank, fresh=fresh)
            pool.waiting.append(waiter)
            pool.do(pool.core.borrow(waiter, self.now))

    @precondition(lambda self: self.which_have("waiting"))
    @rule(which=Which, waiter=Which)
    def cancel(self, which, waiter):
        pool = pick(self.which_have("waiting"), which)
        one = pick(pool.waiting, waiter)
        pool.waiting.remove(one)
        pool.do(pool.core.cancel(one, self.now))

    @rule(which=Which)
    def cancel_after_hand_over(self, which):
        pool = pick(self.pools, which)
        waiter = Waiter(self.now, math.inf)
        pool.waiting.append(waiter)
        pool.do(pool.core.borrow(waiter, self.now))
        if waiter.slot is not None:
            del pool.held[waiter.slot]
            pool.do(pool.core.cancel(waiter, self.now))

    @precondition(lambda self: self.which_have("held"))
    @rule(which=Which, slot=Which, healthy=st.booleans())
    def give_back(self, which, slot, healthy):
        pool = pick(self.which_have("held"), which)
        one = pick(pool.held, slot)
        use = pool.held.pop(one)
        pressure = pool.places.pressure
        first = pool.core.line.first()
        pool.do(pool.core.returned(one, use, self.now, healthy=healthy))
        if one.state is SlotState.BORROWED and pool.core._standing > pool.share.kept and pressure < UPKEEP:
            arrival = min(waiter.order[0] for waiter in [first] if waiter is not None)
            assert arrival <= pressure + WARM_CREDIT, "somebody who came later was served first"

    @precondition(lambda self: self.which_have("dialling"))
    @rule(which=Which, slot=Which, ok=st.sampled_from([True, True, True, True, False]))
    def dial_ends(self, which, slot, ok):
        pool = pick(self.which_have("dialling"), which)
        one = pick(pool.dialling, slot)
        pool.dialling.remove(one)
        if ok:
            pool.do(pool.core.opened(one, object(), self.now))
        else:
            pool.do(pool.core.open_failed(one, OSError("test"), self.now))

    @rule(which=Which, slot=Which)
    def lose(self, which, slot):
        pool = pick(self.pools, which)
        if pool.core.slots:
            pool.do(pool.core.lost(pick(pool.core.slots, slot), self.now))

    @precondition(lambda self: self.which_have("closing"))
    @rule(which=Which, slot=Which)
    def peer_is_gone(self, which, slot):
        pool = pick(self.which_have("closing"), which)
        one = pick(pool.closing, slot)
        pool.closing.remove(one)
        pool.do(pool.core.closed(one, self.now))

    @precondition(lambda self: self.mail)
    @rule(which=Which)
    def look(self, which):
        pool = pick(self.mail, which)
        del self.mail[pool]
        pool.do(pool.core.look(self.now))

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 2.0, 8.0]))
    def time_passes(self, seconds):
        self.now += seconds
        for pool in self.pools:
            pool.do(pool.core.tick(self.now))

    @rule(which=Which, max_size=st.integers(1, 5), share=st.none() | st.floats(0, 1))
    def resize(self, which, max_size, share):
        pool = pick(self.pools, which)
        min_size = None if share is None else int(max_size * share)
        new = dataclasses.replace(pool.core.settings, max_size=max_size, min_size=min_size)
        pool.do(pool.core.resize(new, self.now))

    @rule(which=Which, really=st.integers(0, 49))
    def drain_or_close(self, which, really):
        pool = pick(self.pools, which)
        if really == 0:
            pool.do(pool.core.drain(self.now))
        if really == 1:
            pool.do(pool.core.close(self.now))
        if really == 2 and pool.core.phase is Phase.CLOSED:
            pool.do(pool.core.abort_borrowed(self.now))

    # Every rule, after every step

    @invariant()
    def consistent(self):
        for pool in getattr(self, "pools", ()):
            check(pool.core)
            share = pool.share
            if share in self.ledger.shares:
                assert share.used == len(pool.core.slots), "the ledger does not know what the pool has"
                assert share.closing == pool.core.closing
                assert share.reserved <= len(share.wants)
                assert pool in self.mail or not share.reserved, "a place is reserved and nobody knows"
                assert pool in self.mail or not share.evict
                assert pool in self.mail or pool.core.phase is not Phase.RUNNING or pool.core.floor == share.fair
            else:
                assert pool.core.phase is Phase.CLOSED
                assert not pool.core.slots

    @invariant()
    def the_books_add_up(self):
        if not hasattr(self, "pools"):
            return
        ledger = self.ledger
        assert ledger.taken == sum(share.used + share.reserved for share in ledger.shares) <= ledger.total
        for host in HOSTS:
            taken = sum(share.used + share.reserved for share in ledger.shares if share.host == host)
            assert ledger.taken_by_host[host] == taken <= ledger.per_host
        assert sum(share.fair for share in ledger.shares) <= ledger.total
        assert all(share.kept <= share.fair <= share.floor for share in ledger.shares)

    @invariant()
    def works_as_much_as_it_may(self):
        """Nobody wants a place while one is free, can be had, or others who want it less have more than they keep."""
        if not hasattr(self, "pools"):
            return
        ledger = self.ledger
        for pool in self.pools:
            core, share = pool.core, pool.share
            if pool not in self.mail and core.wake > self.now:
                assert share.wants == core._wants(self.now), "the ledger does not know what the pool wants"
            awaited = sum(want < UPKEEP for want in share.wants)
            assert pool in self.mail or awaited <= max(0, core.line.size - core.opening), "a wish that a dial serves"
            if share.unmet:
                assert ledger.room(share.host) <= 0, "a place is free and somebody waits for it"
        wishes = ledger._wishes()
        coming = sum(share.closing + share.evict for share in ledger.shares)
        if len(wishes) > coming and ledger.per_host == math.inf:
            arrival = wishes[coming][0]
            spares = [
                share
                for since, share in ledger._spares()
                if share.standing > (share.fair if arrival == UPKEEP else share.kept)
            ]
            assert not spares, "somebody waits beside an idle connection that he may have"

    @rule(times=st.integers(1, 8))
    def a_calm_time(self, times):
        """Nothing happens but what the pools do by themselves."""
        for _ in range(times):
            self.settle()
            self.now = max(
                self.now, min((pool.core.wake for pool in self.pools if pool.core.wake < math.inf), default=0)
            )
            self.time_passes(0.0)

    @rule()
    def settle(self):
        """Everything comes to rest: mail is read, dials succeed, closes end."""
        for _ in range(10_000):
            if self.mail:
                self.look(0)
                continue
            for pool in self.pools:
                if pool.dialling:
                    pool.do(pool.core.opened(pool.dialling.pop(0), object(), self.now))
                    break
                if pool.closing:
                    pool.do(pool.core.closed(pool.closing.pop(0), self.now))
                    break
            else:
                return
        raise AssertionError("it never comes to rest")

    def teardown(self):
        """Whatever happened: when all that is lent comes back, everybody who waits is served."""
        if not hasattr(self, "pools"):
            return
        for _ in range(10_000):
            self.settle()
            pool = next((pool for pool in self.pools if pool.held), None)
            if pool is not None:
                slot, use = pool.held.popitem()
                pool.do(pool.core.returned(slot, use, self.now))
            elif any(pool.waiting for pool in self.pools):
                wake = min(pool.core.wake for pool in self.pools)
                assert wake < math.inf, "somebody waits for ever"
                self.now = max(self.now, wake)
                self.time_passes(0.0)
            else:
                break
        else:
            raise AssertionError("somebody waits for ever")
        for pool in self.pools:
            pool.do(pool.core.close(self.now))
        self.settle()
        assert not self.ledger.shares
        assert self.ledger.taken == 0
        assert not any(self.ledger.taken_by_host.values())


TestLimits = World.TestCase
TestLimits.settings = hypothesis_settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
)
