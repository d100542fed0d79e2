"""A fake OpenAI-compatible model, far faster than any server under test: `python -m bench.upstream PORT`.

The request says what to answer: the last `bench-<tokens>-<tokens a second>` in its body; 0 a second is as fast as it
goes. Each token is `~<number>.<microseconds>;` in hexadecimal, its place and the moment it was emitted, so that
whoever reads it on the same machine can count tokens and measure their delay, whatever they were wrapped in.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import Any

import httptools
import uvloop

MARK = re.compile(rb"bench-(\d+)-(\d+)")
STAMP_MASK = 0xFFFFFFFF
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{%s},"finish_reason":%s}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


def stamp() -> int:
    return time.monotonic_ns() // 1000 & STAMP_MASK


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Answer:
    """One answer on its way: paced by timers, or token by token in turn with all others."""

    def __init__(self, model: Model, tokens: int, per_second: int) -> None:
        self.model, self.tokens, self.per_second, self.said = model, tokens, per_second, 0
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        model.write(HEAD + chunk(EVENT % (b'"role":"assistant","content":""', b"null")))
        self.next()

    def next(self) -> None:
        if self.model.transport.is_closing():
            return
        if self.model.paused:
            self.loop.call_later(0.001, self.next)
            return
        self.said += 1
        self.model.write(chunk(EVENT % (b'"content":"~%x.%x;"' % (self.said, stamp()), b"null")))
        if self.said == self.tokens:
            end = EVENT % (b"", b'"stop"') + USAGE % (self.tokens, self.tokens + 10)
            self.model.write(chunk(end) + b"0\r\n\r\n")
        elif self.per_second:
            self.loop.call_at(self.began + self.said / self.per_second, self.next)
        else:
            self.loop.call_soon(self.next)


class Model(asyncio.Protocol):
    """One connection."""

    paused = False

    def connection_made(self, transport: Any) -> None:
        self.transport, self.write = transport, transport.write
        self.parser, self.path, self.body = httptools.HttpRequestParser(self), b"", b""

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path, self.body = url, b""

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        asked = MARK.findall(self.body[-4096:]) or MARK.findall(self.body)
        if self.path.endswith(b"/completions") and asked:
            Answer(self, *map(int, asked[-1]))
        else:
            self.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
