"""`python -m speechpool.testing.proxy`: the fault proxy as a program. See docs/faults.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from typing import TextIO

from speechpool.errors import SettingsError

from .control import control, state_of
from .faults import FAULTS, PlacedFault
from .grammar import GRAMMAR, default_text, parse_fault
from .proxy import FaultProxy

__all__ = ["main"]

_EXAMPLES = """
examples:
  python -m speechpool.testing.proxy --to 127.0.0.1:8765 --fault latency@both:25ms,5ms
  python -m speechpool.testing.proxy --to 127.0.0.1:8765 --fault reset-peer:2s~10% --control 9001
  curl -X POST http://127.0.0.1:9001/faults -d '{"fault": "half-open"}'
  curl -X DELETE http://127.0.0.1:9001/faults

It ends with Ctrl-C (exit code 130) or SIGTERM (143); 2: an argument is wrong; 3: the port cannot be had.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proxy until a signal ends it, and return the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(chosen))
    except OSError as error:
        host, port = chosen.listen
        problem = f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --listen or --control."
        _tell(problem, sys.stderr)
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speechpool.testing.proxy",
        description="A TCP proxy that makes a network bad on purpose.",
        epilog=f"faults ({GRAMMAR}):\n{_table()}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="default: a free port on loopback",
    )
    parser.add_argument("--to", type=_address, required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="FAULT", help="what goes wrong; may come again"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all chances (default: 0)")
    parser.add_argument(
        "--control", type=int, metavar="PORT", help="serve the control on this loopback port; 0: a free one"
    )
    parser.add_argument(
        "--json", action="store_true", help="what listens where, and the state at the end, as JSON lines"
    )
    return parser


def _table() -> str:
    rows = []
    for kind in FAULTS:
        values = ",".join(f"{each.name}={default_text(each)}" for each in kind.attributes())
        rows.append((kind.kind, values, kind.meaning))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"  {name:{widths[0]}}  {values:{widths[1]}}  {meaning}" for name, values, meaning in rows)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} must be HOST:PORT, with a port of 0 to 65535, e.g. 127.0.0.1:8765")
    return host.strip("[]"), int(port)


def _fault(text: str) -> PlacedFault:
    try:
        return parse_fault(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _run(chosen: argparse.Namespace) -> int:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
            asyncio.get_running_loop().add_signal_handler(number, _end, ended, 128 + number)
    host, port = chosen.listen
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(*chosen.to, host=host, port=port, seed=chosen.seed))
        for fault in chosen.fault:
            proxy.add(fault)
        own = None
        if chosen.control is not None:
            own = await stack.enter_async_context(control(proxy, chosen.control))
        _say(chosen, proxy, own)
        code = await ended
        if chosen.json:
            _tell(json.dumps(state_of(proxy)))
        return code


def _tell(line: str, where: TextIO | None = None) -> None:
    print(line, file=where, flush=True)


def _end(ended: asyncio.Future[int], code: int) -> None:
    if not ended.done():
        ended.set_result(code)


def _say(chosen: argparse.Namespace, proxy: FaultProxy, own: int | None) -> None:
    host, port = proxy.address
    to = f"{chosen.to[0]}:{chosen.to[1]}"
    if chosen.json:
        _tell(json.dumps({"listen": f"{host}:{port}", "to": to, "control": own}))
        return
    _tell(f"{host}:{port} -> {to}")
    for active in proxy.faults:
        _tell(f"  {active.placed}: {active.placed.fault.meaning}")
    if own is not None:
        _tell(f"  control: http://127.0.0.1:{own}/")


if __name__ == "__main__":
    sys.exit(main())
