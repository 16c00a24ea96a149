"""Runs the Python blocks of one page in their order, as a reader would who types them into one session.

    python run_page.py docs/PAGE.md PORT

A block may wait at its top level; all of them share their names. Addresses are replaced by the service on PORT of this
machine, and nothing else. `stack`, an AsyncExitStack, is there for setups that open something.
"""

import ast
import asyncio
import inspect
import re
import sys
from contextlib import AsyncExitStack

from pages import blocks


def at_home(code, port):
    """Return the code with the addresses of a test."""
    code = re.sub(r"Endpoint\.(local\(\)|dashscope\([^)]*\))", f"Endpoint.local({port})", code)
    code = re.sub(r"wss://dashscope(-intl)?\.aliyuncs\.com", f"ws://127.0.0.1:{port}", code)
    code = re.sub(r"\b8765\b", port, code)
    return re.sub(r"monitoring\.serve\((\w+)", r"monitoring.serve(\1, port=0", code)


def main(page, port):
    names = {"__name__": "__main__", "stack": AsyncExitStack()}
    with asyncio.Runner() as runner:
        try:
            for block in blocks(page):
                if block.language not in {"python", "setup"} or block.wish("not run") or block.wish("run by"):
                    continue
                source = "\n" * block.line + at_home(block.code, port)  # a traceback names the line of the page
                code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, names))
                else:
                    exec(code, names)
        finally:
            runner.run(names["stack"].aclose())


main(*sys.argv[1:])
