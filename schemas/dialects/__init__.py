"""Conversion of providers' usage objects to disjoint meters, by one table for each dialect.

:mod:`schemas.dialects.dialect_table` is the form of the tables, ``provider_*`` are the tables,
:mod:`schemas.dialects.usage_leaves` finds the numbers of an object, and :mod:`schemas.dialects.meter_split` turns them
into meters. docs/reference/usage-events.md, "Dialects", is the page for people who send usage.

- An absent or null count is 0. A count of 0 is treated as absent, even where no row names it.
- Every other number is mapped by a row, known as not billed, or refused (``usage_mismatch``).
- Streaming usage is cumulative, and the emitter sends the last object. Nothing is summed over objects here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from schemas.dialects.dialect_table import Dialect, LeafRow, Role
from schemas.dialects.meter_split import CACHE_PLACE, REASONING_PLACE, TOTAL_SUM, Mismatch, split_usage
from schemas.dialects.provider_alibaba import DASHSCOPE, DASHSCOPE_MEDIA
from schemas.dialects.provider_amazon import BEDROCK
from schemas.dialects.provider_anthropic import ANTHROPIC
from schemas.dialects.provider_baidu import QIANFAN
from schemas.dialects.provider_bytedance import VOLCENGINE, VOLCENGINE_IMAGES
from schemas.dialects.provider_cohere import COHERE
from schemas.dialects.provider_deepseek import DEEPSEEK
from schemas.dialects.provider_google import GEMINI, GEMINI_OPENAI
from schemas.dialects.provider_iflytek import SPARK
from schemas.dialects.provider_litellm import LITELLM
from schemas.dialects.provider_minimax import MINIMAX
from schemas.dialects.provider_mistral import MISTRAL, MISTRAL_AUDIO
from schemas.dialects.provider_moonshot import MOONSHOT
from schemas.dialects.provider_ollama import OLLAMA
from schemas.dialects.provider_openai import (
    OPENAI_AUDIO,
    OPENAI_CHAT,
    OPENAI_REALTIME,
    OPENAI_RESPONSES,
    SGLANG_CHAT,
    VLLM_CHAT,
)
from schemas.dialects.provider_openrouter import OPENROUTER
from schemas.dialects.provider_otel import OTEL
from schemas.dialects.provider_perplexity import PERPLEXITY, PERPLEXITY_AGENT
from schemas.dialects.provider_tencent import HUNYUAN
from schemas.dialects.provider_xai import XAI, XAI_RESPONSES
from schemas.dialects.provider_zhipu import ZHIPU
from schemas.dialects.usage_leaves import Leaf, is_number, is_zero, leaf_count, leaves, table_tree
from schemas.fields import show
from schemas.meters import MAX_COUNT, Counts, canonical_counts
from schemas.refusals import Refused

__all__ = ["DIALECTS", "TABLES", "DialectCounts", "disjoint_counts", "read_dialect"]

TABLES: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OPENAI_CHAT,
        OPENAI_RESPONSES,
        OPENAI_REALTIME,
        OPENAI_AUDIO,
        ANTHROPIC,
        DEEPSEEK,
        VLLM_CHAT,
        SGLANG_CHAT,
        OTEL,
        LITELLM,
        GEMINI,
        GEMINI_OPENAI,
        DASHSCOPE,
        DASHSCOPE_MEDIA,
        MOONSHOT,
        ZHIPU,
        MINIMAX,
        VOLCENGINE,
        VOLCENGINE_IMAGES,
        QIANFAN,
        HUNYUAN,
        SPARK,
        XAI,
        XAI_RESPONSES,
        MISTRAL,
        MISTRAL_AUDIO,
        COHERE,
        BEDROCK,
        OLLAMA,
        OPENROUTER,
        PERPLEXITY,
        PERPLEXITY_AGENT,
    )
}
"""The tables by name, in the order in which they are listed."""

DIALECTS: tuple[str, ...] = tuple(TABLES)
"""The values of ``usage_dialect``."""

_TREES = {name: table_tree(dialect) for name, dialect in TABLES.items()}


@dataclass(frozen=True, slots=True)
class DialectCounts:
    """The counts of a usage object by meter, and sentences about numbers that no row names, if they are noted."""

    counts: Counts
    unknown: tuple[str, ...] = ()


def read_dialect(
    dialect: str,
    usage: dict[str, Any],
    path: str = "data.usage",
    *,
    declared_meters: frozenset[str] = frozenset(),
    note_unknown: bool = False,
) -> DialectCounts:
    """Convert a provider's usage object to disjoint counts in canonical order, without zeros.

    Args:
        dialect: one of :data:`DIALECTS`.
        usage: the object as received.
        path: the path of the object, for messages.
        declared_meters: meters that price books declare; a count that is not billed becomes one that its row names.
        note_unknown: numbers that no row names are noted and not refused.

    Raises:
        Refused: ``invalid_event`` (unknown dialect, a count that is not an integer), ``usage_mismatch`` or
            ``overflow``.
    """
    table = TABLES.get(dialect)
    if table is None:
        raise Refused("invalid_event", f"data.usage_dialect is {show(dialect)}: expected one of {', '.join(DIALECTS)}")
    table = _form(table, usage)
    if usage and not _has_needed(table, usage):
        needs = dict.fromkeys((*table.needs, *(name for form in table.forms for name in TABLES[form].needs)))
        detail = f"{path} has none of {', '.join(needs)}, which its dialect counts"
        raise Mismatch(detail + _suggestion(other.name for other in TABLES.values() if _has_needed(other, usage)))
    found: dict[str, tuple[int, str]] = {}
    declared: dict[str, int] = {}
    unknown = []
    for leaf in leaves(_TREES[table.name], path, usage):
        row = leaf.row
        if row is None:
            if not is_zero(leaf.value):
                if not note_unknown:
                    raise Mismatch(_unknown(table.name, leaf, path, usage))
                unknown.append(f"{leaf.path} is {show(leaf.value)}: the dialect {table.name} has no meter for it")
        elif row.role is not Role.NOT_BILLED:
            _add(found, leaf, row)
        elif row.meter in declared_meters:
            declared[row.meter] = declared.get(row.meter, 0) + leaf_count(leaf, row)
    try:
        meters = split_usage(table, found, path)
    except Mismatch as problem:
        raise Mismatch(str(problem) + _otherwise(table, problem.otherwise, usage)) from None
    for meter, count in (*meters.items(), *declared.items()):
        if count > MAX_COUNT:
            raise Refused("overflow", f"{path} counts {count} of {meter}: a count is at most {MAX_COUNT}")
    return DialectCounts(canonical_counts({**meters, **declared}), tuple(unknown))


def disjoint_counts(dialect: str, usage: dict[str, Any], path: str = "data.usage") -> Counts:
    """Return the counts of :func:`read_dialect`."""
    return read_dialect(dialect, usage, path).counts


def _add(found: dict[str, tuple[int, str]], leaf: Leaf, row: LeafRow) -> None:
    count, place = found.get(row.path, (0, leaf.path))
    found[row.path] = count + leaf_count(leaf, row), place


def _has_needed(table: Dialect, usage: dict[str, Any]) -> bool:
    return any(name in usage for name in table.needs)


def _form(table: Dialect, usage: dict[str, Any]) -> Dialect:
    """Return the table that reads an object: that of the dialect, or the first of its forms that waits for a name."""
    forms = [TABLES[name] for name in table.forms]
    for form in forms:
        if any(_is_count(usage.get(name)) for name in form.when or form.needs):
            return form
    if not _has_needed(table, usage):
        return next((form for form in forms if _has_needed(form, usage)), table)
    return table


def _is_count(value: object) -> bool:
    """Return True if a value is a number other than 0."""
    return is_number(value) and not is_zero(value)


def _adds_up(table: Dialect, usage: dict[str, Any]) -> bool:
    """Return True if a dialect that checks a grand total reads every number of an object without a contradiction."""
    if table.rest_is_reasoning or not table.totals or not _has_needed(table, usage):
        return False
    found: dict[str, tuple[int, str]] = {}
    try:
        for leaf in leaves(_TREES[table.name], "", usage):
            if leaf.row is None:
                if not is_zero(leaf.value):
                    return False
            elif leaf.row.role is not Role.NOT_BILLED:
                _add(found, leaf, leaf.row)
        split_usage(table, found, "")
    except Refused:
        return False
    return True


@cache
def _who_knows() -> dict[str, list[str]]:
    """Return the dialects that have a row, by its path."""
    known: dict[str, list[str]] = {}
    for table in TABLES.values():
        for row in table.rows:
            known.setdefault(row.path, []).append(table.name)
    return known


def _suggestion(names: Iterable[str]) -> str:
    """Ask for the dialects that an object may be of."""
    listed = list(names)[:3]
    return f"; is it usage_dialect {' or '.join(listed)}?" if listed else ""


def _unknown(dialect: str, leaf: Leaf, path: str, usage: dict[str, Any]) -> str:
    """Describe a number that no row names, and what to do about it."""
    others = _who_knows().get(leaf.path.removeprefix(f"{path}."), [])
    names = [name for name in others if _has_needed(TABLES[name], usage)] or others
    question = f"{_suggestion(names)} Else" if names else ";"
    return (
        f"{leaf.path} is {show(leaf.value)}: the dialect {dialect} has no meter for it{question} take it "
        "out and give what is billed in data.meters, or set TOKENBILL_UNKNOWN_USAGE=note"
    )


def _otherwise(table: Dialect, what: str | None, usage: dict[str, Any]) -> str:
    """Name the dialects that count otherwise what made an object contradict itself, those that it could be first."""
    if what == CACHE_PLACE:
        others = [other for other in TABLES.values() if Role.CACHED not in other.input_includes]
        words = "the cache outside the input"
    elif what == REASONING_PLACE:
        others = [other for other in TABLES.values() if not other.output_includes_reasoning]
        words = "the reasoning outside the output"
    elif what == TOTAL_SUM:
        return _suggestion(other.name for other in TABLES.values() if other is not table and _adds_up(other, usage))
    else:
        return ""
    others = [other for other in others if other is not table]
    alike = [other for other in others if _has_needed(other, usage)]
    alike = [other for other in alike if _adds_up(other, usage)] or alike
    if not others:
        return ""
    names = [other.name for other in alike or others][:3]
    verb = "counts" if len(names) == 1 else "count"
    question = _suggestion(names) if alike else ""
    return f" ({' and '.join(names)} {verb} {words}){question}"
