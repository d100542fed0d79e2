"""A token issuer on a real socket: it publishes its keys, signs, rotates, and breaks on request."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

NAME, AUDIENCE = "https://issuer.test", "agent-runtime"


class Issuer:
    def __init__(self) -> None:
        self.requests = 0
        self.keys: dict[str, Any] = {}
        self.more: list[Any] = []  # as they are, beside the good ones
        self.broken: tuple[int, bytes] | None = None
        self.rotate("first")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                status, body = issuer.broken or (200, issuer.jwks())
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def rotate(self, key_id: str, *, algorithm: str = "ES256") -> None:
        """From now on there is this key only."""
        made: Any = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else None
        self.keys = {key_id: made or rsa.generate_private_key(65537, 2048)}

    def jwks(self) -> bytes:
        found = []
        for key_id, key in self.keys.items():
            kind: Any = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
            found.append(json.loads(kind.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig"})
        return json.dumps({"keys": [*found, *self.more]}).encode()

    def token(self, subject: Any = "alice", *, seconds: float = 3600, head: Any = None, **claims: Any) -> str:
        """A good token, but for what is given; a claim that is None is left out."""
        key_id, key = next(iter(self.keys.items()))
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        told = {"sub": subject, "iss": NAME, "aud": AUDIENCE, "exp": time.time() + seconds, **claims}
        told = {name: value for name, value in told.items() if value is not None}
        # Not `jwt.encode`: it would refuse to make what is to be refused.
        return jwt.api_jws.PyJWS().encode(
            json.dumps(told).encode(), key, algorithm, headers={"kid": key_id, **(head or {})}
        )

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
