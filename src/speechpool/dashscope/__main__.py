"""`python -m speechpool.dashscope SCRIPT.py ARGS`: an unchanged program of the official SDK, on our classes.

The program runs as `python SCRIPT.py ARGS` or `python -m MODULE ARGS` would run it: with the same arguments,
`__main__`, first place of imports, exit code and tracebacks.
"""

from __future__ import annotations

import argparse
import io
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final

from .patching import patch

_NO_FILE: Final = 2
_FRAMES: Final = frozenset({__file__, runpy.__file__, "<frozen runpy>"})
"""Where code of the runner lies, which is no part of a program's traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program that `arguments` name.

    Raises:
        SystemExit: The arguments are wrong, or the program ends with another exit code than 0.
        BaseException: What the program raises; the process is to end with it.
    """
    chosen = _parser().parse_args(arguments)
    if not chosen.module and chosen.script is None:
        _parser().error("name a script, or a module with -m.")
    try:
        if chosen.module:
            _module(chosen.module, chosen.url)
        else:
            _script(chosen.script, chosen.arguments, chosen.url)
    except SystemExit:
        raise
    except BaseException:
        # The interpreter tells it, and ends the process, as it does for any program: Ctrl-C, for one, is a signal.
        sys.excepthook = partial(_tell, sys.excepthook)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speechpool.dashscope",
        usage="%(prog)s [-h] [--url URL] (SCRIPT | -m MODULE) ...",
        description="Run an unchanged program of the official dashscope SDK on the classes of speechpool, "
        "whether the SDK is installed or not.",
        epilog="Without the SDK, dashscope.audio.tts and dashscope.audio.tts_v2 are there, and nothing else of it.",
    )
    parser.add_argument(
        "--url",
        help="where every connection goes, whatever the program says; the local service is "
        "ws://127.0.0.1:8765, and takes any key",
    )
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="a module to run, and its arguments"
    )
    parser.add_argument("script", metavar="SCRIPT", nargs="?", help="the program")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def _script(path: str, arguments: Sequence[str], url: str | None) -> None:
    whole = str(Path(path).absolute())
    try:
        with io.open_code(whole) as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {whole!r}: [Errno {error.errno}] {error.strerror}\n")
        sys.exit(_NO_FILE)
    sys.argv[:] = [path, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(path).resolve().parent)
    patch(url)
    main = ModuleType("__main__")
    vars(main).update(__file__=whole, __cached__=None, __loader__=SourceFileLoader("__main__", whole))
    sys.modules["__main__"] = main  # for good: threads and exit functions of the program look there, too
    exec(compile(source, whole, "exec", dont_inherit=True), vars(main))  # noqa: S102  # that is what it is for


def _module(module: Sequence[str], url: str | None) -> None:
    sys.argv[1:] = module[1:]
    patch(url)
    runpy.run_module(module[0], run_name="__main__", alter_sys=True)


def _tell(
    hook: Callable[..., object], kind: type[BaseException], error: BaseException, at: TracebackType | None
) -> None:
    """Tell an error in the words of `hook`, without the frames of the runner."""
    while at is not None and at.tb_frame.f_code.co_filename in _FRAMES:
        at = at.tb_next
    error.__traceback__ = at
    hook(kind, error, at)


if __name__ == "__main__":
    main()
