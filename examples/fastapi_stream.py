"""Speech over HTTP: `GET /speech?text=...` streams MP3 while it is being spoken.

    pip install fastapi uvicorn
    speechpool service &
    python examples/fastapi_stream.py
    curl 'http://127.0.0.1:8000/speech?text=Hello.' -o hello.mp3

A listener who hangs up cancels the task; the connection stays warm for the next one.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.errors import InvalidText, SpeechPoolError

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="mp3")


def make_app(endpoint: Endpoint) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncSpeechPool(endpoint, max_size=20) as pool:
            app.state.pool = pool
            yield
            await pool.close(drain=5.0)  # those who are listening may hear the end

    app = FastAPI(lifespan=lifespan)

    @app.get("/speech")
    async def speech(request: Request, text: str) -> StreamingResponse:
        audio = spoken(request.app.state.pool, text)
        try:
            first = await anext(audio)  # what fails before the first audio still gets a status of its own
        except InvalidText as error:
            raise HTTPException(400, str(error)) from error
        except SpeechPoolError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from error
        return StreamingResponse(continued(first, audio), media_type="audio/mpeg")

    @app.get("/health")
    async def health(request: Request) -> str:
        pool: AsyncSpeechPool = request.app.state.pool
        return pool.explain()

    return app


async def spoken(pool: AsyncSpeechPool, text: str) -> AsyncIterator[bytes]:
    async with pool.stream(text, VOICE) as stream:
        async for chunk in stream:
            yield chunk


async def continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve speech over HTTP.")
    parser.add_argument("--endpoint", default="ws://127.0.0.1:8765", help="the speech server (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="where to listen (%(default)s)")
    chosen = parser.parse_args()
    endpoint = Endpoint(chosen.endpoint, api_key=os.getenv("DASHSCOPE_API_KEY", "local"))
    uvicorn.run(make_app(endpoint), port=chosen.port, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
