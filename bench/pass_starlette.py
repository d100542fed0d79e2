"""T0b, what one writes in an hour: Starlette and httpx pass the model's bytes through, nothing is read or stored."""

import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

URL = os.environ.get("UPSTREAM", "") + "/v1/chat/completions"
client = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None, max_keepalive_connections=2000))


async def chat(request: Request) -> StreamingResponse:
    headers = {"content-type": "application/json"}
    asked = client.build_request("POST", URL, content=await request.body(), headers=headers)
    answer = await client.send(asked, stream=True)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for data in answer.aiter_raw():
                yield data
        finally:
            await answer.aclose()

    return StreamingResponse(body(), media_type="text/event-stream")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
