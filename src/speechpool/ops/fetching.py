"""Asking an HTTP server of one's own for a page, with errors that say what to do."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized

__all__ = ["Server"]

LIMIT: Final = 5.0
"""Seconds for one answer."""
_LARGEST: Final = 32 * 2**20
"""Bytes of the longest answer."""


class Server:
    """An HTTP server.

    Args:
        what: What it should be, for people: "Prometheus".
        url: Its URL, with `user:password@` where it asks for them; one without a scheme means http.
        token: What is sent as `Authorization: Bearer`; None: nothing.
        access: What to do where it refuses us.

    Attributes:
        place: Host and port, for people; never a password or token.

    Raises:
        SettingsError: It is no http or https URL.
    """

    def __init__(
        self, what: str, url: str, *, token: str | None = None, access: str = "write http://USER:PASSWORD@HOST/"
    ) -> None:
        parts = _split(url)
        if parts is None:
            shown = url.rpartition("@")[2]  # what stands before it may be a password
            raise SettingsError(f"{shown!r} is no URL of {what}; it looks like http://127.0.0.1:9090/.")
        self.place = parts.netloc.rpartition("@")[2]
        self._what, self._access = what, access
        self._parts = parts._replace(netloc=self.place)
        self._authorization = f"Bearer {token}" if token else _basic(parts)

    @property
    def path(self) -> str:
        """The path of its URL, without a slash at the end."""
        return self._parts.path.rstrip("/")

    def json(self, path: str, query: str = "") -> Any:
        """Return the JSON of a page below the URL.

        Raises:
            ConnectFailed: As `text`; or it is no JSON.
        """
        try:
            return json.loads(self.text(f"{self.path}{path}", query))
        except ValueError:
            raise ConnectFailed(f"what answers at {self.place} is no {self._what}: {path} is no JSON.") from None

    def text(self, path: str, query: str = "") -> str:
        """Return a page; blocks for some seconds at most.

        Raises:
            ConnectFailed: Nobody answers, or with an error.
            Unauthorized: A token is missing or wrong.
        """
        request = urllib.request.Request(_url(self._parts, path, query))  # noqa: S310  # http or https, see `_split`
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)  # for this host only
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:  # noqa: S310  # see above
                body: bytes = answer.read(_LARGEST)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {401, 403}:
                    said = f"{self._what} at {self.place} lets nobody in without a token or password"
                    raise Unauthorized(f"{said} (HTTP {error.code}): {self._access}.") from error
                raise ConnectFailed(f"{self._what} at {self.place} answers {path} with HTTP {error.code}.") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ConnectFailed(f"{self._what} does not answer at {self.place}: {reason}.") from error
        return body.decode(errors="replace")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if usable else None


def _basic(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _url(parts: SplitResult, path: str, query: str) -> str:
    joined = "&".join(part for part in (parts.query, query) if part)
    return urlunsplit((parts.scheme, parts.netloc, path or "/", joined, ""))
