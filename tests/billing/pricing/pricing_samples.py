"""Price books and events for pricing tests."""

from dataclasses import replace
from pathlib import Path

from billing.catalog import PriceBook
from billing.catalog.load import read_folder
from schemas.times import parse_time_us
from schemas.usage import UsageEvent

HEAD = """\
kind: price_book
name: retail
version: 3
currency: CNY
effective_from: "2026-01-01T00:00:00+08:00"
time_bands:
  peak: {timezone: Asia/Shanghai, days: [mon, tue, wed, thu, fri], hours: ["09:00-12:00", "14:00-18:00"]}
"""
PEAK_US = parse_time_us("2026-11-23T10:00:00+08:00")
OFF_PEAK_US = parse_time_us("2026-11-23T20:00:00+08:00")

EVENT = UsageEvent(
    source="s",
    id="1",
    sequence=1,
    time_us=PEAK_US,
    account="acct-1",
    model="m",
    hardware_tier="unknown",
    energy_source="unknown",
    site="unknown",
    channel="cloud",
    service_tier="standard",
    outcome="completed",
    requested_model=None,
    member=None,
    request_id=None,
    reservation=None,
    counts=(("input", 10),),
)


def book_of(folder: Path, text: str, head: str = HEAD) -> PriceBook:
    """Read one price book without the checks for publication."""
    (folder / "book.yaml").write_text(head + text, encoding="utf-8")
    catalog, findings = read_folder(folder)
    assert not findings, [str(finding) for finding in findings]
    (book,) = catalog.price_books
    return book


def event(counts: dict[str, int], time_us: int = PEAK_US, **dimensions: str) -> UsageEvent:
    """Return an event with these counts and dimensions."""
    return replace(EVENT, counts=tuple(counts.items()), time_us=time_us, **dimensions)  # type: ignore[arg-type]
