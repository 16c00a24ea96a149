"""Who may come in: one decision for each handshake, and the words of each refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .keys import client_of, given_key, is_welcome
from .limits import ServiceSettings
from .origins import check_origins, is_local_name, is_own_page

if TYPE_CHECKING:
    from speechpool.transport import Request

    from .session import SpeechSession

__all__ = ["Door", "Guests", "Rebuff", "address_of"]


class Rebuff(Exception):
    """This handshake is refused.

    Attributes:
        status: The HTTP status.
        code: For programs.
        message: For people: what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Guests(set["SpeechSession"]):
    """The sessions that are open now, counted by key and by address. A session adds and discards itself."""

    def __init__(self) -> None:
        super().__init__()
        self.by_client: Counter[str] = Counter()
        self.by_address: Counter[str] = Counter()
        self._invited: WeakKeyDictionary[SpeechSession, tuple[str, str]] = WeakKeyDictionary()

    def invite(self, session: SpeechSession, client: str, address: str) -> None:
        """Say whose session it is, before it adds itself. One that never does leaves nothing behind."""
        self._invited[session] = (client, address)

    def add(self, session: SpeechSession) -> None:
        """Count it."""
        super().add(session)
        client, address = self._invited[session]
        self.by_client[client] += 1
        self.by_address[address] += 1

    def discard(self, session: SpeechSession) -> None:  # type: ignore[override]  # a set takes any object
        """Count it no more."""
        if session not in self:
            return
        super().discard(session)
        client, address = self._invited.pop(session)
        _count_out(self.by_client, client)
        _count_out(self.by_address, address)


class Door:
    """Checks each request.

    Args:
        api_key: The key that clients must send; None: any will do.
        settings: Limits.
        allowed_origins: Web pages that may connect, beside the service's own.

    Raises:
        SettingsError: An origin is none.
    """

    def __init__(self, api_key: str | None, settings: ServiceSettings, allowed_origins: Collection[str]) -> None:
        self._api_key = api_key
        self._settings = settings
        self._origins = check_origins(allowed_origins)

    def check_name(self, request: Request) -> None:
        """Refuse a request that calls this machine by a strange name, where no key protects the service.

        Raises:
            Rebuff: It does.
        """
        if self._api_key is None and not is_local_name(request.headers.get("host")):
            raise Rebuff(
                403,
                "AccessDenied",
                "Without an API key this service answers only to names of its own machine: connect to localhost or "
                "127.0.0.1, or start it with a key.",
            )

    def check_guest(self, request: Request, guests: Guests) -> str:
        """Return the name of the client (see `client_of`) where its handshake is in order.

        Raises:
            Rebuff: It is not.
        """
        key = given_key(request.headers.get("authorization"))
        if key is None or not is_welcome(key, self._api_key):
            raise Rebuff(401, "InvalidApiKey", "Invalid API-key provided.")
        if not is_own_page(request.headers.get("origin"), request.headers.get("host"), self._origins):
            raise Rebuff(
                403,
                "AccessDenied",
                "The page that connects (header Origin) is of another host; allow it by allowed_origins "
                "(--allow-origin).",
            )
        client = client_of(key)
        self._check_room(guests, client, address_of(request))
        return client

    def _check_room(self, guests: Guests, client: str, address: str) -> None:
        of_all, of_key, of_address = (
            self._settings.max_connections,
            self._settings.max_connections_per_key,
            self._settings.max_connections_per_address,
        )
        if len(guests) >= of_all:
            raise Rebuff(503, "ServiceUnavailable", f"The limit of {of_all} connections is reached.")
        if of_key is not None and guests.by_client[client] >= of_key:
            raise Rebuff(429, "Throttling", f"The limit of {of_key} connections of one key is reached; close some.")
        if of_address is not None and guests.by_address[address] >= of_address:
            raise Rebuff(
                429, "Throttling", f"The limit of {of_address} connections of one address is reached; close some."
            )


def _count_out(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def address_of(request: Request) -> str:
    """Return the address of the peer; empty where it has none."""
    return request.peer[0] if request.peer else ""
