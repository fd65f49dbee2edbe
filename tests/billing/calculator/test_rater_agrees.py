"""The compiled path of ``tokenbill rate`` equals the plain path to the byte: dialects, refusals, bands, adjustments."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_samples import CATALOG, MODELS, OPTIONAL, data, price_books

from benchmarks import workload
from billing.calculator import core_rater
from billing.calculator.core_rater import CompiledRater
from billing.catalog import Catalog, load_folder
from billing.pricing.lines import BookRater, encode_line
from schemas.dialects import DIALECTS
from tokenbill.commands import rate as command

EXAMPLES = Path(__file__).parents[3] / "examples" / "catalog"
TIMES = (
    "2026-11-22T00:30:00Z",
    "2026-11-22T01:00:00Z",
    "2026-11-22T09:15:00.5+08:00",
    "2026-11-22T09:19:59.999999+08:00",
    "2026-11-22T09:20:00+08:00",
    "2026-11-22T02:30:00Z",
    "2026-11-23T03:59:59.999999Z",
    "2026-11-23T04:00:00Z",
    "2026-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "yesterday",
)
TEXTS = (
    "acct-1",
    "x",
    'odd "name"',
    "词元",
    "tab\t",
    "\x7f",
    "\ud800",
    "a" * 256,
    "a" * 257,
    "",
    "back\\slash",
    "é" * 128,
)
TOTALS = {"prompt_tokens": "completion_tokens", "input_tokens": "output_tokens", "gen_ai.usage.input_tokens": ""}
COUNTS = (0, 1, 3, 128, 640, 641, 8000, 8001, 10**7, 2**31, 2**62, 10**17, 10**18, 2**63, -1, 1.5, None, "5", True)
SPACES = (b"", b" ", b"\t", b"\r", b"\x0b\x0c", b"   ")


def dialect_usage(rng: Random) -> dict[str, Any]:
    """Return a usage object with some provider's field names, which need not match the dialect given for it."""
    words, answer = rng.choice(list(TOTALS.items()))
    usage: dict[str, Any] = {
        words: rng.choice(COUNTS[1:9]),
        answer or "gen_ai.usage.output_tokens": rng.choice(COUNTS[:9]),
    }
    if rng.random() < 0.3:
        usage["prompt_tokens_details"] = {"cached_tokens": rng.choice(COUNTS[:6])}
    if rng.random() < 0.3:
        usage["cache_read_input_tokens"] = rng.choice(COUNTS[:6])
    if rng.random() < 0.1:
        usage["total_tokens"] = rng.choice(COUNTS)
    return usage


def event(rng: Random, times: tuple[str, ...] = TIMES) -> dict[str, Any]:
    body = data(rng)
    chance = rng.random()
    if chance < 0.1:
        body |= {"usage": dialect_usage(rng), "usage_dialect": rng.choice([*DIALECTS, "of nobody"])}
    elif chance < 0.2:
        body["usage"][rng.choice(["input", "output", "tiles", "images", "amps"])] = rng.choice(COUNTS)
    if rng.random() < 0.1:
        body["outcome"] = rng.choice(["failed", "partial", "lost"])
    event = {
        "specversion": "1.0",
        "type": "token.usage.v1",
        "source": rng.choice(("urn:worker:wuxi-tf01:node-17#p0",) * 20 + TEXTS),
        "id": rng.choice((f"call-{rng.randrange(10**6)}",) * 20 + TEXTS),
        "sequence": str(rng.randint(1, 10 ** rng.randint(1, 20))),
        "time": rng.choice(times),
        "subject": rng.choice(("acct-1",) * 20 + TEXTS),
        "data": body,
    }
    if rng.random() < 0.05:
        del event[rng.choice(list(event))]
    return event


def line(rng: Random, times: tuple[str, ...] = TIMES) -> bytes:
    """Return one line of a file, usually an event."""
    if rng.random() < 0.05:
        return rng.choice(
            [b"", b" ", b"\t\r", b"{", b"null", b"\x00", b"\xff\xfe", b"[" * 99, b'{"specversion":"1.0",']
        )
    text = json.dumps(event(rng, times), ensure_ascii=rng.random() < 0.5, separators=rng.choice([None, (",", ":")]))
    value = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        at = rng.randrange(len(value))
        value = value[:at] + rng.choice([b"", b"\x00", b'"', b"}", b"\r", b"\\"]) + value[at + rng.randint(0, 2) :]
    return rng.choice(SPACES[:1] * 9 + SPACES) + value + rng.choice(SPACES[:1] * 9 + SPACES)


def plain_output(catalog: Catalog, name: str, text: bytes) -> tuple[bytes, int, int]:
    rater = BookRater(catalog, name)
    written = b"".join(encode_line(rater.line(line)) for line in io.BytesIO(text) if line.strip())
    return written, rater.rated, rater.rejected


def compiled_output(catalog: Catalog, name: str, text: bytes) -> tuple[bytes, int, int]:
    rater, target = CompiledRater(catalog, name), io.BytesIO()
    command.rate_lines(rater, io.BytesIO(text), target)
    return target.getvalue(), rater.rated, rater.rejected


@pytest.fixture(params=[1, 700, 1 << 18], ids=lambda size: f"{size} bytes a step")
def steps(request: pytest.FixtureRequest) -> Iterator[None]:
    """Buffer sizes: shorter than a line, a few lines, and the default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_BYTES_PER_STEP", request.param + 1)
        yield


@pytest.mark.usefixtures("steps")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_compiled_and_plain_rater_write_the_same_bytes(seed: int) -> None:
    rng = Random(seed)
    lines = [line(rng) for _ in range(rng.randint(0, 60))]
    text = rng.choice([b"\n", b"\n", b"\r\n"]).join(lines) + rng.choice([b"", b"\n", b"\n\n"])
    name = rng.choice(["retail", "usd"])
    assert compiled_output(CATALOG, name, text) == plain_output(CATALOG, name, text)


@pytest.mark.parametrize("seed", range(3))
def test_the_books_of_the_examples_are_priced_as_the_plain_path_prices_them(seed: int) -> None:
    catalog, rng = load_folder(EXAMPLES), Random(seed)
    models = [pattern.replace("*", "x") for book in catalog.price_books for pattern in {row.model for row in book.rows}]
    hours = tuple(f"2026-11-{day:02}T{hour:02}:{minute:02}:07.25+08:00"
                  for day in range(1, 29) for hour in range(24) for minute in (0, 14, 15, 59))  # fmt: skip
    lines = []
    for _ in range(1500):
        body = event(rng, hours)
        body.setdefault("data", {})["model"] = rng.choice(models)
        lines.append(json.dumps(body).encode())
    for name in catalog.books:
        text = b"\n".join(lines)
        assert compiled_output(catalog, name, text) == plain_output(catalog, name, text)


def test_common_lines_never_leave_the_core() -> None:
    """The parity tests would also pass if the plain path rated every line; this test excludes that."""
    values = workload.events(300, ["acct-1"], 0, 1)
    rater = CompiledRater(workload.catalog(), "bench")
    command.rate_lines(rater, io.BytesIO(b"\n".join(values)), io.BytesIO())
    assert (rater.rated, rater.rejected, rater._plain.rated) == (300, 0, 0)


def test_bands_contexts_and_refusals_never_leave_the_core() -> None:
    common = {"source": "s", "id": "i", "subject": "a", "specversion": "1.0", "type": "token.usage.v1"}
    cases = [
        (f"2026-11-22T{hour:02}:20:00Z", {"model": model, "usage": {"input": tokens, meter: 1}})
        for hour in range(3, 24)
        for tokens in (1, 999, 1000, 10**7)
        for model in ("qwen3", "banded", "nobody")
        for meter in ("output", "images")
    ]
    cases += [("2025-01-01T00:00:00Z", data) for _, data in cases[:9]]
    cases += [(time, data | {"outcome": "failed", "site": "O'Hare"}) for time, data in cases[:9]]
    values = [json.dumps(common | {"time": time, "data": data}).encode() for time, data in cases]
    catalog = Catalog(price_books=price_books()[:1])
    rater, target = CompiledRater(catalog, "retail"), io.BytesIO()
    text = b"\n".join(values)
    command.rate_lines(rater, io.BytesIO(text), target)
    assert (target.getvalue(), rater.rated, rater.rejected) == plain_output(catalog, "retail", text)
    assert rater._plain.rated + rater._plain.rejected == 0


def test_invented_texts_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_rater, "_MAX_COMBINATIONS", 50)
    monkeypatch.setattr(command, "_BYTES_PER_STEP", 4_000)
    rng = Random(3)
    lines = []
    for number in range(600):
        body = event(rng)
        body.setdefault("data", {})["site"] = f"invented-{number}"
        lines.append(json.dumps(body).encode())
    text = b"\n".join(lines)
    rater, target = CompiledRater(CATALOG, "retail"), io.BytesIO()
    command.rate_lines(rater, io.BytesIO(text), target)
    assert (target.getvalue(), rater.rated, rater.rejected) == plain_output(CATALOG, "retail", text)
    assert len(rater._lines.decoder.combinations) < 100


def test_versions_of_other_books_are_not_asked() -> None:
    """Times before the first version of the chosen book are refused, regardless of other books."""
    assert [book.name for book in price_books()] == ["retail", "retail", "usd"]
    assert "free" in MODELS and "site" in OPTIONAL
    body = event(Random(1)) | {"time": "2026-01-01T00:00:00Z", "data": {"model": "free", "usage": {"input": 1}}}
    text = json.dumps(body | {"source": "s", "id": "i", "subject": "a", "specversion": "1.0", "type": "token.usage.v1"})
    (written, _, rejected) = compiled_output(CATALOG, "retail", text.encode())
    assert (json.loads(written)["rejected"]["reason"], rejected) == ("no_price_book", 1)


@pytest.mark.parametrize("explained", [False, True])
def test_the_command_writes_what_the_plain_path_writes(tmp_path: Path, explained: bool) -> None:
    rng = Random(11)
    text = b"\n".join(line(rng) for _ in range(200))
    catalog = load_folder(EXAMPLES)
    name = catalog.books[0]
    rater = BookRater(catalog, name)
    expected = b"".join(
        encode_line(rater.line(value, explained=explained)) for value in io.BytesIO(text) if value.strip()
    )
    (tmp_path / "events.jsonl").write_bytes(text)
    for events, given_input in ((str(tmp_path / "events.jsonl"), None), ("-", text)):
        arguments = ["--catalog", str(EXAMPLES), "--price-book", name, "--events", events]
        result = CliRunner().invoke(
            command.rate, arguments + ["--explain"] * explained, input=given_input, catch_exceptions=False
        )
        assert result.stdout_bytes == expected
        assert result.stderr == f"{rater.rated} rated, {rater.rejected} rejected\n"
        out = tmp_path / "out.jsonl"
        CliRunner().invoke(command.rate, [*arguments, "--out", str(out)] + ["--explain"] * explained, input=given_input)
        assert out.read_bytes() == expected
