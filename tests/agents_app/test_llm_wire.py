"""The client of the model's answers, against bytes that no test server of good manners sends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agents_app.llm_wire import MAX_HEAD_BYTES, Pool, WireBroken

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
WAIT_SECONDS = 20


class Cut(bytes):
    """After these, the provider hangs up."""


class Provider(asyncio.Protocol):
    """Gives one answer a request, each as it is, over all its connections."""

    def __init__(self, *answers: bytes) -> None:
        self.left = list(answers)
        self.connections = 0
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.connections += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        answer = self.left.pop(0)
        self.transport.write(answer)
        if isinstance(answer, Cut):
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def asked(provider: Provider, tls: ssl.SSLContext | None = None, trust: Any = None) -> AsyncIterator[Pool]:
    server = await asyncio.get_running_loop().create_server(lambda: provider, "127.0.0.1", 0, ssl=tls)
    async with server:
        pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], trust)
        yield pool
        pool.close()


async def told(pool: Pool) -> tuple[int, bytes, list[bytes]]:
    """The status, the body, and the reads it came in."""
    heard: list[bytes] = []
    async with asyncio.timeout(WAIT_SECONDS), pool.asked(REQUEST, WAIT_SECONDS) as answer:
        await answer.read(heard.append)
        return answer.status, b"".join(heard), heard


BODIES = {
    "a length": OK + b"Content-Length: 5\r\n\r\nhello",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "the end of the connection": Cut(OK + b"\r\nhello"),
    "HTTP/1.0": Cut(b"HTTP/1.0 200 OK\r\n\r\nhello"),
    "after 100 Continue": b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "after early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)
async def test_a_body_ends_where_it_says(answer: bytes) -> None:
    async with asked(Provider(answer)) as pool:
        assert (await told(pool))[:2] == (200, b"hello")


async def test_what_one_read_brings_is_heard_at_once() -> None:
    async with asked(Provider(BODIES["chunks"])) as pool:
        assert (await told(pool))[2] == [b"hello"]


BROKEN = {
    "nothing": Cut(b""),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "half a head": Cut(b"HTTP/1.1 200"),
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    "a head without an end": OK + b"X: " + b"y" * (MAX_HEAD_BYTES + 1),
    "a broken chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_answer_breaks(answer: bytes) -> None:
    async with asked(Provider(answer)) as pool:
        with pytest.raises(WireBroken):
            await told(pool)


CUTS = [OK + b"Content-Length: 9\r\n\r\nhello", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]


@pytest.mark.parametrize("cut", CUTS, ids=["a length", "chunks"])
async def test_a_body_that_is_cut_is_heard_and_breaks(cut: bytes) -> None:
    heard: list[bytes] = []
    async with asked(Provider(Cut(cut))) as pool, pool.asked(REQUEST, WAIT_SECONDS) as answer:
        with pytest.raises(WireBroken):
            await answer.read(heard.append)
    assert b"".join(heard) == b"hello"


USED_AGAIN = {
    "kept": (BODIES["a length"], True),
    "told to close": (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
    "more than was asked": (BODIES["a length"] * 2, False),
}


@pytest.mark.parametrize(("first", "again"), USED_AGAIN.values(), ids=USED_AGAIN)
async def test_a_connection_is_used_again_only_when_nothing_speaks_against_it(first: bytes, again: bool) -> None:
    provider = Provider(first, BODIES["a length"])
    async with asked(provider) as pool:
        assert [(await told(pool))[1] for _ in range(2)] == [b"hello", b"hello"]
    assert provider.connections == (1 if again else 2)


async def test_leaving_early_closes_the_connection() -> None:
    provider = Provider(OK + b"Content-Length: 5\r\n\r\nhe")
    async with asked(provider) as pool, asyncio.timeout(WAIT_SECONDS):
        async with pool.asked(REQUEST, WAIT_SECONDS) as answer:
            assert answer.status == 200
        await provider.lost.wait()


async def test_what_the_listener_raises_ends_the_answer() -> None:
    def refuse(data: bytes) -> None:
        raise ValueError("enough")

    async with asked(Provider(BODIES["a length"])) as pool, pool.asked(REQUEST, WAIT_SECONDS) as answer:
        with pytest.raises(ValueError, match="enough"):
            await answer.read(refuse)
        assert not answer.reusable


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    address = x509.IPAddress(ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "provider.pem"
    path.write_bytes(made.public_bytes(pem) + kept)
    return path


async def test_over_tls_only_a_provider_that_is_trusted_is_asked(certificate: Path) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    provider = Provider(BODIES["a length"])
    async with asked(provider, ours, ssl.create_default_context()) as pool:
        with pytest.raises(WireBroken):
            await told(pool)
    async with asked(provider, ours, ssl.create_default_context(cafile=str(certificate))) as pool:
        assert (await told(pool))[1] == b"hello"
