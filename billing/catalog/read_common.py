"""Readers that several kinds of entry share: names, currencies, time zones, patterns, scopes, dates."""

import re
from datetime import date

from billing.catalog.model import TEXT_DIMENSIONS
from billing.catalog.nodes import Node
from billing.catalog.patterns import ANY
from billing.catalog.source import Fields
from billing.catalog.timebands import zone_of
from schemas.fields import MAX_TEXT_BYTES

_NAME = re.compile(r"\w[\w.\-]*")
_CURRENCY = re.compile(r"[A-Z]{3}")
_METER = re.compile(r"[a-z][a-z0-9_]*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def read_name(fields: Fields, key: str = "name") -> str:
    """Read the name of an entry: letters, digits, ``_``, ``.`` and ``-``, so that ``name@version`` is unambiguous."""
    value = fields.text(key)
    if value and not _NAME.fullmatch(value):
        fields.fail(key, f"is {value!r}; write letters, digits, '_', '.' and '-'")
    elif len(value.encode()) > MAX_TEXT_BYTES:
        fields.fail(key, f"is {len(value.encode())} bytes long; commands can name at most {MAX_TEXT_BYTES}")
    return value


def read_currency(fields: Fields) -> str:
    """Read a currency code of three capital letters."""
    value = fields.text("currency")
    if value and not _CURRENCY.fullmatch(value):
        fields.fail("currency", f"is {value!r}; write a code of three capital letters such as CNY")
    return value


def read_timezone(fields: Fields, default: str = "") -> str:
    """Read the name of an IANA time zone."""
    value = fields.text("timezone", default)
    if value:
        try:
            zone_of(value)
        except ValueError:
            fields.fail("timezone", f"is {value!r}; write a zone of the IANA database such as Asia/Shanghai")
    return value


def is_meter_name(text: str) -> bool:
    """Return True if a text can be the name of a meter."""
    return _METER.fullmatch(text) is not None


def check_pattern(fields: Fields, key: str, pattern: str) -> str:
    """Return a pattern, and report it if ``*`` stands anywhere but at its end."""
    if ANY in pattern[:-1]:
        fields.fail(key, f"is {pattern!r}; '*' may only stand at the end, as in 'ascend-*', or alone")
    return pattern


def read_scope(fields: Fields, keys: tuple[str, ...] = TEXT_DIMENSIONS) -> dict[str, tuple[str, ...]]:
    """Read dimensions with one pattern or a list of patterns each, in the order of ``keys``."""
    return {key: tuple(check_pattern(fields, key, p) for p in fields.texts(key)) for key in keys if key in fields}


def read_dates(fields: Fields, key: str) -> tuple[int, ...]:
    """Read a list of dates as sorted ordinals, and report a date that occurs twice."""
    days = [_read_date(fields, node, name) for node, name in fields.items(key)]
    if len(set(days)) != len(days) and not fields.failed:
        fields.fail(key, "has a date twice; write each date once")
    return tuple(sorted(set(days)))


def _read_date(fields: Fields, node: Node, name: str) -> int:
    text = fields.text_of(node, name)
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text).toordinal()
    except ValueError:
        pass
    if text:
        fields.fail_at(node, name, f"is {text!r}; write a date such as 2026-10-01")
    return 0
