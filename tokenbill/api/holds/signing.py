"""Signatures of offline grants: JWS compact form with HMAC-SHA256 (RFC 7515, 7518).

Keeps no key and checks no claims.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from schemas.json_text import dump_json

_HEADER = {"alg": "HS256", "typ": "tokenbill-offline-grant+jws"}


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def sign(claims: dict[str, Any], key: bytes) -> str:
    """Return the claims as a signed token."""
    signed = _encode(dump_json(_HEADER)) + b"." + _encode(dump_json(claims))
    return (signed + b"." + _encode(_mac(key, signed))).decode()


def verify(token: str, key: bytes) -> dict[str, Any] | None:
    """Return the claims of a token that :func:`sign` made with this key; None for any other text."""
    signed, _, mac = token.rpartition(".")
    header, _, claims = signed.partition(".")
    if not token.isascii() or not hmac.compare_digest(_encode(_mac(key, signed.encode())), mac.encode()):
        return None
    if header.encode() != _encode(dump_json(_HEADER)):
        return None
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return read
