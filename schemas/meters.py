"""The meters that a usage event may count, and their canonical order. Never: prices."""

from collections.abc import Iterable, Mapping

Counts = tuple[tuple[str, int], ...]
"""(meter, count) in canonical order, without zeros."""

TOKEN_METERS: tuple[str, ...] = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_cache_read",
    "audio_output",
    "image_input",
    "image_cache_read",
    "image_output",
    "video_input",
    "video_output",
    "sensor_input",
)
"""Meters that count tokens. They are disjoint, so their counts may be added."""

METERS: tuple[str, ...] = (
    *TOKEN_METERS,
    "requests",
    "images",
    "milliseconds",
    "device_milliseconds",
    "characters",
    "pages",
    "searches",
    "gb_hours",
    "seats",
)
"""All built-in meters in canonical order, the order of counts, lines and columns
(docs/reference/usage-events.md, "Meters")."""


_CONTEXT_ENDINGS = ("_input", "_cache_read", "_cache_write", "_cache_write_1h")


def is_context_meter(meter: str) -> bool:
    """Return True if a meter counts tokens of the prompt: ``input``, ``cache_*``, ``*_input`` and ``*_cache_*``.

    A cached image or sound is a part of the prompt like cached text. A declared meter counts if it is named like one of
    these, such as ``scent_input`` or ``video_cache_read`` (docs/decisions/readings-of-the-contract.md).
    """
    return meter == "input" or meter.startswith("cache_") or meter.endswith(_CONTEXT_ENDINGS)


def is_output_meter(meter: str) -> bool:
    """Return True if a meter counts tokens of the answer: ``output``, ``reasoning`` and ``*_output``.

    A declared meter counts if its name ends in ``_output``.
    """
    return meter in ("output", "reasoning") or meter.endswith("_output")


CONTEXT_METERS: tuple[str, ...] = tuple(meter for meter in METERS if is_context_meter(meter))
"""Built-in meters whose counts add up to the context size, which selects a price row's context band."""

MAX_COUNT = 2**63 - 1
"""The greatest count of one meter in one event; more is ``overflow``."""

_RANK: dict[str, int] = {meter: rank for rank, meter in enumerate(METERS)}


def canonical_counts(counts: Mapping[str, int] | Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Return counts without zeros: built-in meters in the order of :data:`METERS`, then declared meters by name."""
    pairs = counts.items() if isinstance(counts, Mapping) else counts
    return tuple(sorted(((m, n) for m, n in pairs if n), key=lambda pair: (_RANK.get(pair[0], len(METERS)), pair[0])))


def context_tokens(counts: Iterable[tuple[str, int]]) -> int:
    """Return the context size: the sum of the counts that select a context band."""
    return sum(count for meter, count in counts if is_context_meter(meter))


def output_tokens(counts: Iterable[tuple[str, int]]) -> int:
    """Return the length of the answer: the sum of the counts that select a band of ``output_context``."""
    return sum(count for meter, count in counts if is_output_meter(meter))
