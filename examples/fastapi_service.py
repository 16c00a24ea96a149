"""A back end as a cluster runs it: speech over HTTP and over a WebSocket, a probe, a drain, metrics.

    pip install 'speechpool[monitoring]' fastapi uvicorn websockets
    speechpool service &
    python examples/fastapi_service.py
    curl 'http://127.0.0.1:8000/speech?text=Hello.' -o hello.mp3

`docs/fastapi.md` explains it, `docs/kubernetes.md` runs it.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from speechpool import AsyncSpeechPool, Endpoint, LocalQuota, Voice, monitoring
from speechpool.errors import InvalidText, SpeechPoolError

LISTENER = Voice("cosyvoice-v3-flash", "longanyang", format="mp3")
CALLER = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=16000)
router = APIRouter()


# ------------------------------------------------------------------------------------- one pool for the whole process
def make_app(endpoint: Endpoint, *, max_size: int = 20, rate: float = 3.0, token: str | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncSpeechPool(endpoint, max_size=max_size, quota=LocalQuota(rate=rate)) as pool:
            app.state.pool, app.state.draining = pool, False
            app.mount("/speechpool", monitoring.asgi(pool, token=token))
            await pool.wait_ready()  # nobody is served before every connection is warm
            yield
            await pool.close(drain=5.0)

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app


# ------------------------------------------------------------------------------------- speech over HTTP
@router.get("/speech")
async def speech(request: Request, text: str) -> StreamingResponse:
    audio = spoken(request.app.state.pool, text)
    try:
        first = await anext(audio)  # what fails before the first audio still gets a status of its own
    except InvalidText as error:
        raise HTTPException(400, str(error)) from error
    except SpeechPoolError as error:
        raise HTTPException(503, str(error), {"Retry-After": "1"} if error.retryable else None) from error
    return StreamingResponse(continued(first, audio), media_type="audio/mpeg")


async def spoken(pool: AsyncSpeechPool, text: str) -> AsyncIterator[bytes]:
    async with pool.stream(text, LISTENER) as stream:
        async for chunk in stream:
            yield chunk


async def continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


# ------------------------------------------------------------------------------------- a conversation over a WebSocket
@router.websocket("/conversation")
async def conversation(socket: WebSocket) -> None:
    """Take {"text": "..."}, {"finish": true} and {"stop": true}; send audio, and {"outcome": ...} after each answer."""
    await socket.accept()
    answer: Answer | None = None
    try:
        async for message in socket.iter_json():
            if message.get("stop") and answer:
                await answer.stop()
                answer = None
            elif message.get("finish") and answer:
                answer.finish()
            elif "text" in message:
                if answer is None or answer.over:
                    answer = Answer(socket)
                answer.say(message["text"])
    finally:  # a caller who hangs up is a barge-in, too
        if answer:
            await answer.stop()


class Answer:
    """One answer: its text comes in pieces, and its audio goes out meanwhile."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._speaking = asyncio.create_task(self._speak(socket.app.state.pool))

    @property
    def over(self) -> bool:
        return self._speaking.done()

    def say(self, text: str) -> None:
        self._pieces.put_nowait(text)

    def finish(self) -> None:
        self._pieces.put_nowait(None)

    async def stop(self) -> None:
        """Cancelled, it leaves the stream: the server stops speaking, and the connection stays warm."""
        if not self.over:
            self._speaking.cancel()
            await asyncio.wait([self._speaking])
            await self._tell({"outcome": "stopped"})

    async def _speak(self, pool: AsyncSpeechPool) -> None:
        try:
            async with pool.stream(self._text(), CALLER) as stream:
                async for chunk in stream:
                    await self._socket.send_bytes(chunk)
                await self._tell({"outcome": "completed"})
        except WebSocketDisconnect:  # the caller has hung up
            return
        except SpeechPoolError as error:
            await self._tell({"outcome": "failed", "error": str(error), "retryable": error.retryable})
        if self._socket.app.state.draining:
            await self._hang_up()

    async def _text(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def _tell(self, message: dict[str, Any]) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # who has hung up is told nothing
            await self._socket.send_json(message)

    async def _hang_up(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(1012)  # "service restart": the caller dials again, and meets another process


# ------------------------------------------------------------------------------------- what a cluster asks
@router.get("/healthz")
async def healthz() -> str:
    """Say that the event loop runs. An outage of the provider is no reason to restart it: the pool heals itself."""
    return "ok"


@router.get("/ready")
async def ready(request: Request) -> str:
    """Say whether new callers are welcome."""
    if request.app.state.draining:
        raise HTTPException(503, "draining")
    pool: AsyncSpeechPool = request.app.state.pool
    return pool.explain()


@router.get("/drain")
async def drain(request: Request, at_least: float = 5.0) -> str:
    """Turn new callers away, and return when nobody is spoken to any more. For this machine only."""
    if request.client is None or request.client.host not in {"127.0.0.1", "::1"}:
        raise HTTPException(403, "only from this machine")
    pool: AsyncSpeechPool = request.app.state.pool
    request.app.state.draining = True
    await asyncio.sleep(at_least)  # until then others may still send callers here
    while pool.stats.borrowed or pool.stats.waiting:  # noqa: ASYNC110  # a look ten times a second costs nothing
        await asyncio.sleep(0.1)
    return "drained"


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve speech over HTTP and WebSockets.")
    parser.add_argument("--endpoint", default="ws://127.0.0.1:8765", help="the speech server (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="and on which port (%(default)s)")
    parser.add_argument("--max-size", type=int, default=20, help="connections (%(default)s)")
    parser.add_argument("--rate", type=float, default=3.0, help="task starts a second (%(default)s)")
    chosen = parser.parse_args()
    endpoint = Endpoint(chosen.endpoint, api_key=os.getenv("DASHSCOPE_API_KEY", "local"))
    token = os.getenv("MONITOR_TOKEN")  # without one, only this machine sees the numbers
    app = make_app(endpoint, max_size=chosen.max_size, rate=chosen.rate, token=token)
    uvicorn.run(app, host=chosen.host, port=chosen.port, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
