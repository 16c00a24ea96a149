"""Requests that open a connection, or rather do not: HTTP that is mutated, huge, missing or something else."""

from __future__ import annotations

import base64
from random import Random

from fuzz_instructions import mutate_bytes

PATH = "/api-ws/v1/inference"
STATUSES = frozenset({101, 200, 400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 501, 503, 505})
"""What a service may answer to a stranger; 500 is not among them."""

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "CONNECT", "get", "", "G\x00T", "GET" * 200)
TARGETS = (
    PATH,
    PATH + "/",
    PATH + "?a=b",
    "/",
    "",
    "*",
    "//",
    "/healthz",
    "/voices",
    "/%00",
    "/../etc",
    "http://a/",
    "/" + "a" * 20000,
    "/é",
)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "http/1.1")
OTHER_PROTOCOLS = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    b"\x05\x01\x00",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"EHLO there\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\x00" * 40,
    b"GET\r\n\r\n",
)
VALUES = {
    "Upgrade": ("websocket", "WebSocket", "h2c", "", "websocket, h2c", "ü"),
    "Connection": ("Upgrade", "keep-alive, Upgrade", "close", "", "upgrade,,,", "ü"),
    "Sec-WebSocket-Key": (
        "",
        "a",
        "=" * 24,
        base64.b64encode(b"x" * 15).decode(),
        base64.b64encode(b"x" * 64).decode(),
        "ü" * 24,
    ),
    "Sec-WebSocket-Version": ("13", "8", "0", "-1", "13, 8", "9" * 50, "", "ü"),
    "Authorization": ("", "Bearer", "Bearer ", "Basic YTpi", "Bearer " + "k" * 9000, "Bearer \xff", "bearer fuzz"),
    "Host": ("", "evil.example", "127.0.0.1:99999", "[::1", "a" * 300),
    "Origin": ("null", "http://evil.example", "\xff"),
    "Content-Length": ("0", "5", "-1", "9" * 30, "a"),
    "Transfer-Encoding": ("chunked", "identity"),
    "Sec-WebSocket-Extensions": ("permessage-deflate", "permessage-deflate; client_max_window_bits", ";;;"),
    "Sec-WebSocket-Protocol": ("realtime", ",,"),
    "Expect": ("100-continue",),
    "X-DashScope-WorkSpace": ("w" * 100, "", "a\tb"),
}


def request(random: Random, key: str, *, target: str = PATH) -> bytes:
    """A right one, with its headers in any order."""
    return _written(random, f"GET {target} HTTP/1.1", right_headers(random, key))


def right_headers(random: Random, key: str) -> list[tuple[str, str]]:
    return [
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", base64.b64encode(random.randbytes(16)).decode()),
        ("Sec-WebSocket-Version", "13"),
        ("Authorization", f"Bearer {key}"),
    ]


def handshake(random: Random, key: str) -> tuple[str, bytes]:
    """Return the kind of a wrong request, for people, and the request. Some are right by chance."""
    draw = random.random()
    if draw < 0.08:
        return "another protocol", random.choice(OTHER_PROTOCOLS)
    if draw < 0.14:
        return "noise", random.randbytes(random.choice((1, 30, 3000)))
    if draw < 0.34:
        return "mutated bytes", mutate_bytes(random, request(random, key))
    if draw < 0.44:
        return "cut off", (whole := request(random, key))[: random.randrange(len(whole))]
    headers = right_headers(random, key)
    if draw < 0.56:
        line = " ".join((random.choice(METHODS), random.choice(TARGETS), random.choice(VERSIONS)))
        return "first line", _written(random, line, headers)
    if draw < 0.62:
        return "huge", _huge(random, headers)
    if draw < 0.68:
        return "line ends", request(random, key).replace(b"\r\n", random.choice((b"\n", b"\r", b"\r\n ", b"\r\n\t")))
    return "headers", _written(random, f"GET {PATH} HTTP/1.1", _mutated(random, headers))


def _mutated(random: Random, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for _ in range(random.randint(1, 3)):
        change = random.randrange(4)
        if change == 0 and headers:
            del headers[random.randrange(len(headers))]
        elif change == 1 and headers:
            headers.append(random.choice(headers))
        else:
            name = random.choice(tuple(VALUES))
            headers = [pair for pair in headers if pair[0] != name]
            headers.append((random.choice((name, name.lower(), name.upper())), random.choice(VALUES[name])))
    return headers


def _huge(random: Random, headers: list[tuple[str, str]]) -> bytes:
    many = random.choice((0, 100, 200, 5000))
    more = [(f"X-{number}", "v") for number in range(many)] or [("X-Long", "v" * random.choice((8000, 70000, 400000)))]
    return _written(random, f"GET {PATH} HTTP/1.1", headers + more)


def _written(random: Random, line: str, headers: list[tuple[str, str]]) -> bytes:
    random.shuffle(headers)
    lines = [line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")
