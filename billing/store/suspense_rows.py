"""The rows of ``suspense``: a rejected record as one row of ``COPY`` text, and its headers as text and back.

No rules, no statements; :mod:`billing.store.suspense` reads what is written here.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence

from billing.commit import Suspended

Headers = Sequence[tuple[str, bytes | None]]


def suspense_rows(suspense: Iterable[Suspended]) -> Iterator[tuple[str | int | bytes | None, ...]]:
    """Columns of ``suspense`` from ``row_no`` on, numbered from 1."""
    known: Headers = ()
    text = headers_text(known)
    for number, one in enumerate(suspense, 1):
        record, why = one.record, one.rejection
        if record.headers != known:  # A flood has the same ones again and again.
            known, text = record.headers, headers_text(record.headers)
        yield (
            *(number, one.topic, record.offset, record.timestamp * 1000, why.reason, why.detail),
            *(why.source, why.id, why.sequence, why.account),
            *(record.key, text, record.value),
        )


def headers_text(headers: Headers) -> str:
    """Headers as JSON: a list of [name, base64 or null]; ASCII, so that a column of text can hold any name."""
    return json.dumps(
        [[name, None if content is None else base64.b64encode(content).decode()] for name, content in headers]
    )


def read_headers(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """What :func:`headers_text` wrote."""
    return tuple((name, None if content is None else base64.b64decode(content)) for name, content in json.loads(text))
