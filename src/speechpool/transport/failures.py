"""Why a connection could not be opened, in words that say what to do.

Every function makes one error and raises nothing. No text holds a key: header values that a server echoes are struck
out, and of a proxy only scheme, host and port are named.
"""

from __future__ import annotations

import errno
import math
import re
import socket
import ssl as tls
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from speechpool.errors import ConnectFailed, RateLimited, Unauthorized

from . import descriptors

__all__ = [
    "closed_early",
    "name_unknown",
    "no_websocket",
    "out_of_descriptors",
    "proxy_failed",
    "refused",
    "retry_after",
    "timed_out",
    "tls_failed",
    "unreachable",
]

_WORTH_RETRYING = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_LONGEST_BODY = 200

_TRUST = "pass an SSLContext that trusts it (on the command line: --tls-ca FILE)"
_CERTIFICATE = {
    9: "the certificate is not valid yet; check the clock of this machine",
    10: "the certificate has expired; renew it, or check the clock of this machine",
    18: f"the certificate is self-signed; {_TRUST}",
    19: f"its certificate authority is unknown; {_TRUST}",
    20: f"its certificate authority is unknown; {_TRUST}",
    21: f"its certificate authority is unknown; {_TRUST}",
    62: "the certificate is for another host; check the host name of the URL",
    64: "the certificate is for another address; use the host name that it was made for",
}

_PLAIN = "That port seems to speak no TLS; is the URL ws:// or the port another?"
_OLD = "It speaks only versions of TLS that are too old to be safe; let it offer TLS 1.2 or newer."
_NO_CIPHER = "The two sides share no cipher; let it offer modern ones, or pass an SSLContext that takes its own."
_TLS_HINTS = {
    # By the reasons of OpenSSL 3.0 to 3.5; a peer's own alert has "ALERT" in its name.
    "WRONG_VERSION_NUMBER": _PLAIN,
    "PACKET_LENGTH_TOO_LONG": _PLAIN,
    "HTTP_REQUEST": _PLAIN,
    "UNKNOWN_PROTOCOL": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
    "UNSUPPORTED_PROTOCOL": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "UNSUPPORTED_SSL_VERSION": _OLD,
    "VERSION_TOO_LOW": _OLD,
    "NO_PROTOCOLS_AVAILABLE": _OLD,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_CIPHER,
    "NO_SHARED_CIPHER": _NO_CIPHER,
}


def refused(
    endpoint: str, status: int, headers: Mapping[str, str], body: bytes = b"", secrets: Iterable[str] = ()
) -> ConnectFailed:
    """The server answered the handshake with `status` instead of 101.

    Args:
        endpoint: Host and path.
        status: The HTTP status.
        headers: The answer's headers, with lower-case names.
        body: As much of the body as came at once.
        secrets: Values that must not appear in the error, e.g. those of our own headers.
    """
    said = _body_text(body, secrets)
    wait = retry_after(headers)
    text = f"{endpoint} refused the connection with HTTP {status}{said}."
    if status in {401, 403}:
        hint = "Check the API key, that it belongs to this region, and the workspace."
        return Unauthorized(f"{text} {hint}", status=status, endpoint=endpoint)
    if status == 429:
        hint = f"Wait {wait:g} s" if wait is not None else "Wait"
        text = f"{text} {hint} before the next try, or open fewer connections at once."
        return RateLimited(text, status=status, retry_after=wait, endpoint=endpoint)
    if 300 <= status < 400:
        where = _without_query(headers.get("location", "an unnamed place"))
        text = f"{endpoint} redirects to {where} (HTTP {status}), which is not followed. Use that URL if you trust it."
        return ConnectFailed(text, status=status, permanent=True, endpoint=endpoint)
    permanent = status not in _WORTH_RETRYING
    hint = (
        "Check host, port and path of the URL."
        if permanent
        else "The server is overloaded or failing; try again later."
    )
    return ConnectFailed(f"{text} {hint}", status=status, permanent=permanent, retry_after=wait, endpoint=endpoint)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that an answer asks to wait, or None.

    Args:
        headers: With lower-case names. A date is counted from the answer's own `Date`, so that clocks may differ.
        now: Seconds since the epoch, where the answer has no `Date`; None: this machine's clock.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        then = _date(value)
        if then is None:
            return None
        start = _date(headers.get("date", ""))
        seconds = then - (start if start is not None else time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def name_unknown(endpoint: str, host: str, error: socket.gaierror) -> ConnectFailed:
    """The name of the server or proxy could not be resolved."""
    known = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL") if hasattr(socket, name)}
    if error.errno in known:
        text = f"Cannot reach {endpoint}: the host name {host!r} is unknown. Check the URL."
        return ConnectFailed(text, permanent=True, endpoint=endpoint)
    text = (
        f"Cannot reach {endpoint}: looking up {host!r} failed ({error.strerror}). Check this machine's network and DNS."
    )
    return ConnectFailed(text, endpoint=endpoint)


def unreachable(endpoint: str, where: str, error: OSError) -> ConnectFailed:
    """No TCP connection to `where`, or it broke while the handshake ran."""
    if error.errno == errno.ECONNREFUSED:
        said, hint = "refused the connection", "Is the service running on that port?"
    elif isinstance(error, ConnectionError):
        said, hint = (
            "broke off the connection",
            "Is it a WebSocket service, and must the URL begin with wss:// or ws://?",
        )
    else:
        said = f"cannot be reached ({error.strerror or error})"
        hint = "Check the network, the firewall and the proxy settings."
    return ConnectFailed(f"Cannot reach {endpoint}: {where} {said}. {hint}", endpoint=endpoint)


def out_of_descriptors(endpoint: str, error: OSError) -> ConnectFailed:
    """No descriptor was left for the socket, or for a file that the dial needs. Not permanent: some come free."""
    return ConnectFailed(f"Cannot reach {endpoint}: {descriptors.remedy(error)}", endpoint=endpoint)


def timed_out(endpoint: str, limit: float, step: str) -> ConnectFailed:
    """The whole dial took longer than its limit, and hung in `step`."""
    text = f"Cannot reach {endpoint}: not connected within {limit:g} s, it hung while {step}."
    return ConnectFailed(f"{text} Check the network, or raise the limit `connect`.", endpoint=endpoint)


def tls_failed(endpoint: str, where: str, error: tls.SSLError) -> ConnectFailed:
    """The TLS handshake failed: a certificate that does not verify, or a peer that speaks something else."""
    if isinstance(error, tls.SSLCertVerificationError):
        why = _CERTIFICATE.get(error.verify_code, error.verify_message)
        text = f"Cannot trust {where}: {why}."
        return ConnectFailed(f"{text} (while connecting to {endpoint})", permanent=True, endpoint=endpoint)
    reason = error.reason or str(error)
    permanent = reason in _TLS_HINTS
    hint = _TLS_HINTS.get(reason, "Check its TLS settings.")
    text = f"Cannot reach {endpoint}: the TLS handshake with {where} failed ({reason}). {hint}"
    return ConnectFailed(text, permanent=permanent, endpoint=endpoint)


def closed_early(endpoint: str, where: str, secure: bool) -> ConnectFailed:
    """The peer hung up before it answered the handshake."""
    scheme = "ws:// (without TLS)" if secure else "wss:// (with TLS)"
    hint = f"Is it overloaded, or is this a {scheme} port?"
    return ConnectFailed(f"Cannot reach {endpoint}: {where} hung up without an answer. {hint}", endpoint=endpoint)


def no_websocket(endpoint: str, why: str) -> ConnectFailed:
    """What answered speaks no WebSocket, or speaks it wrongly."""
    text = f"{endpoint} did not answer as a WebSocket server: {why}. Check host, port and path of the URL."
    return ConnectFailed(text, permanent=True, endpoint=endpoint)


def proxy_failed(endpoint: str, proxy: str, error: Exception) -> ConnectFailed:
    """The proxy could not be used, or would not connect us."""
    words = str(error).strip().rstrip(".")
    denied = re.search(r"\b40[137]\b|auth", words, re.IGNORECASE) is not None
    hint = "Check user and password of the proxy." if denied else "Check that it runs and may reach the endpoint."
    text = f"Cannot reach {endpoint} through the proxy {proxy}: {words or type(error).__name__}. {hint}"
    return ConnectFailed(text, permanent=denied, endpoint=endpoint)


def _body_text(body: bytes, secrets: Iterable[str]) -> str:
    text = " ".join(body.decode(errors="replace").split())
    for secret in secrets:
        text = text.replace(secret, "***")
    return f" ({text[:_LONGEST_BODY]})" if text else ""


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _without_query(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a place that is no URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else parts.path
