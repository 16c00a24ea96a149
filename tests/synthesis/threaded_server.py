"""The scripted server of `harness` on real sockets and a thread of its own: it goes on while the client stands still."""

import asyncio
import contextlib
import threading

from harness import Server

from speechpool import Endpoint
from speechpool.protocol.cosyvoice import FinishTask, RunTask
from speechpool.transport import serve

__all__ = ["never_ends", "serving", "speaks_after", "started"]


@contextlib.contextmanager
def serving():
    """Yield a server that has an `endpoint`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted server")
    thread.start()

    def do(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    async def start():
        server = Server(None)
        server.listener = await serve(server.accept, "127.0.0.1", 0)
        server.endpoint = Endpoint(f"ws://127.0.0.1:{server.listener.port}", api_key="k")
        return server

    async def stop():
        server.listener.close()
        for connection in server.listener.connections:
            connection.abort()
        await server.listener.wait_closed()

    server = do(start())
    try:
        yield server
    finally:
        do(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def speaks_after(server, delay):
    """Let the audio of each text come `delay` seconds after its end, and then the end of the task."""

    def on_finish(session, instruction):
        asyncio.get_running_loop().call_later(delay, late, session, instruction)
        return True

    def late(session, instruction):
        if session.connection.closed is None:
            session.behave(instruction)

    server.hooks[FinishTask] = on_finish


def never_ends(server):
    """Let every task begin, speak, and go on for ever."""
    server.hooks[FinishTask] = lambda session, _: True
    return server


def started(server):
    """How many tasks have begun."""
    return sum(isinstance(each, RunTask) for each in server.received)
