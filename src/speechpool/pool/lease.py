"""The right to one connection."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Generic, TypeVar

from speechpool.errors import LeaseError

from .slot import Slot
from .waiting import FRONT

if TYPE_CHECKING:
    from .pool import Pool

__all__ = ["UNSET", "Lease", "Unset"]

C = TypeVar("C")


class Unset(enum.Enum):
    """Marks an argument that was not given, where None has a meaning of its own."""

    UNSET = "unset"


UNSET = Unset.UNSET


class _State(enum.Enum):
    HELD = "held"
    EMPTY = "empty"  # the connection was given up for a new one, which has not come
    OVER = "over"


_HELD, _EMPTY, _OVER = _State.HELD, _State.EMPTY, _State.OVER


class Lease(Generic[C]):
    """The right to one connection, for any number of consecutive uses. Made by `Pool.borrow`.

    Attributes:
        reused: The connection was open before it was borrowed.
        waited: Seconds in the queue in all.
        connect_time: Seconds of that during which the connection's own dial ran; 0 on reuse.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_pool",
        "_slot",
        "_state",
        "_use",
        "connect_time",
        "reused",
        "waited",
    )

    def __init__(
        self, pool: Pool[C], slot: Slot, reused: bool = True, waited: float = 0.0, connect_time: float = 0.0
    ) -> None:
        self._pool = pool
        self._state = _HELD
        self._slot = slot
        self._use = slot.use
        self._connection: C = slot.connection
        self.reused = reused
        self.waited = waited
        self.connect_time = connect_time

    def __repr__(self) -> str:
        return f"<Lease {self._state.value} of pool {self._pool.name!r}>"

    @property
    def connection(self) -> C:
        """The connection.

        Raises:
            LeaseError: The lease was returned, or lost its connection while it waited for another.
        """
        if self._state is not _HELD:
            raise LeaseError(f"the lease of pool {self._pool.name!r} is {self._state.value}; borrow another.")
        return self._connection

    @property
    def pool(self) -> Pool[C]:
        """Where it came from."""
        return self._pool

    @property
    def usable(self) -> bool:
        """The connection may carry another use; otherwise `renew` first."""
        return self._state is _HELD and self._pool._still_good(self._slot)

    def return_(self, healthy: bool = True, reason: str = "unhealthy") -> None:
        """Give the connection back. A second call does nothing but be counted, and warns in the log.

        Args:
            healthy: It may be borrowed again. False closes it.
            reason: Why not, in a word or two: it becomes a label of the statistics.

        Raises:
            WrongLoop: Called outside the event loop of the pool.
        """
        if self._state is not _EMPTY:
            self._pool._take_back(self._slot, self._use, healthy=healthy, reason=reason)
        self._state = _OVER

    def discard(self, reason: str) -> None:
        """Close the connection instead of giving it back."""
        self.return_(healthy=False, reason=reason)

    async def renew(
        self,
        *,
        timeout: float | Unset | None = UNSET,  # noqa: ASYNC109  # a deadline of the queue, not of a block
        deadline: float | None = None,
        fresh: bool = False,
        reason: str = "renewed",
    ) -> None:
        """Give up the connection for another one, ahead of everybody who waits.

        `reused`, `waited` and `connect_time` describe the new connection afterwards.

        Args:
            timeout: As of `Pool.borrow`.
            deadline: As of `Pool.borrow`.
            fresh: Only one that opens from now on.
            reason: Why, where the old one had not been lost.

        Cancellation: the lease holds no connection; renew it again, or return it.

        Raises:
            LeaseError: The lease was returned.
            PoolTimeout: None came in time. The lease holds no connection, as after a cancellation.
            PoolClosed: The pool was closed.
            WrongLoop: Called outside the event loop of the pool.
        """
        if self._state is _OVER:
            raise LeaseError(f"the lease of pool {self._pool.name!r} is over; borrow another.")
        self._pool._check_loop()
        if self._state is _HELD:
            self._state = _EMPTY
            self._pool._take_back(self._slot, self._use, healthy=False, reason=reason)
        new = await self._pool.borrow(
            timeout=timeout,
            deadline=deadline,
            priority=FRONT,  # type: ignore[arg-type]  # ahead of every priority of a user
            fresh=fresh,
        )
        if self._state is _OVER:  # returned by another task meanwhile
            new.return_()
            raise LeaseError(f"the lease of pool {self._pool.name!r} was returned while it was renewed.")
        new._state = _OVER
        self._state, self._slot, self._use, self._connection = _HELD, new._slot, new._use, new._connection
        self.reused, self.waited, self.connect_time = new.reused, new.waited, new.connect_time

    def __del__(self) -> None:
        # Never returns it quietly: who knows what its borrower was doing when it vanished.
        if getattr(self, "_state", _OVER) is _HELD:
            self._pool._forgotten(self._slot, self._use)
