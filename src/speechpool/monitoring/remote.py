"""The snapshots of a monitor that runs somewhere else."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized

from .snapshot import VERSION

__all__ = ["Remote"]

LIMIT: Final = 5.0
"""Seconds for one answer."""


class Remote:
    """A monitor behind a URL, e.g. `http://127.0.0.1:9464/` or `https://host/monitor/?token=TOKEN`.

    Raises:
        SettingsError: It is no http or https URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(f"{url!r} is no URL of a monitor; it looks like http://127.0.0.1:9464/.")
        path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
        self.place = parts.netloc.rpartition("@")[2]
        """Host and port, for people; never a token."""
        self._url = urlunsplit((parts.scheme, parts.netloc, f"{path}snapshot.json", parts.query, ""))

    def take(self) -> list[dict[str, Any]]:
        """Ask for the pools now; blocks for at most some seconds.

        Raises:
            ConnectFailed: Nobody answers there, or what answers is no monitor.
            Unauthorized: The token is missing or wrong.
        """
        try:
            with urllib.request.urlopen(self._url, timeout=LIMIT) as answer:  # noqa: S310  # http or https, see above
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ConnectFailed(f"no monitor answers at {self.place}: {reason}. Is it running?") from error
        except ValueError as error:
            raise self._no_monitor() from error
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise self._no_monitor()
        pools: list[dict[str, Any]] = told["pools"]
        return pools

    def _refused(self, status: int) -> ConnectFailed:
        if status == 401:
            return Unauthorized(f"the monitor at {self.place} wants its token: add ?token=TOKEN to the URL.")
        return ConnectFailed(f"the monitor at {self.place} answers with HTTP {status}. Is that the right URL?")

    def _no_monitor(self) -> ConnectFailed:
        return ConnectFailed(
            f"what answers at {self.place} is no monitor of this version (it has /snapshot.json, version {VERSION})."
        )
