"""An OpenID Connect provider on the loopback interface, with keys made for one test."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.bounds import HANG
from tests.loopback_server import run_loopback

AUDIENCE = "rootstock"


class LocalIssuer:
    """A provider whose tokens name the tenant and the role; `reads` counts the requests for its keys."""

    def __init__(self) -> None:
        self.url = ""
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.signers: dict[str, tuple[Any, str]] = {
            "r": (self.rsa, "RS256"), "e": (self.ec, "ES256"), "d": (self.ed, "EdDSA"),
        }  # fmt: skip
        self.listed = ["r", "e", "d"]
        self.claimed: str | None = None
        self.reads = 0
        self.status = 200
        self.open = Event()
        self.open.set()

    def token(self, kid: str | None = "r", **claims: Any) -> str:
        """Return a token that is valid but for what `claims` change; a claim of None is left out."""
        key, algorithm = self.signers[kid or "r"]
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**claims), key, algorithm=algorithm, headers=headers)

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {
            "iss": self.url, "aud": AUDIENCE, "exp": now + 600, "iat": now, "sub": "ada", "tenant": "acme",
            "role": "predict",
        }  # fmt: skip
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def jwks(self) -> dict[str, Any]:
        kinds = {"r": RSAAlgorithm, "e": ECAlgorithm, "d": OKPAlgorithm}
        keys: list[dict[str, Any]] = []
        for kid in self.listed:
            key, algorithm = self.signers[kid]
            jwk = json.loads(kinds[kid[0]].to_jwk(key.public_key()))
            keys.append({**jwk, "kid": kid, "alg": algorithm, "use": "sig"})
        # Kinds of keys that nobody may verify with: a secret one, one that encrypts, and an unknown one.
        keys.append({"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"})
        keys.append({**keys[0], "kid": "encrypts", "use": "enc"})
        keys.append({"kty": "other", "kid": "other"})
        return {"keys": keys}


@contextmanager
def run_issuer() -> Iterator[LocalIssuer]:
    """Serve a provider's documents until the end."""
    issuer = LocalIssuer()

    class Documents(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert issuer.open.wait(HANG)
            if self.path == "/jwks":
                issuer.reads += 1
                document: Any = issuer.jwks()
            else:
                document = {"issuer": issuer.claimed or issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
            content = json.dumps(document).encode()
            self.send_response(issuer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with run_loopback(Documents) as url:
        issuer.url = url
        yield issuer
        issuer.open.set()
