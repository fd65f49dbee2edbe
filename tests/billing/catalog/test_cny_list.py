"""Tests that the price list in yuan has only dated prices in yuan, and names the models that have none."""

import re
from pathlib import Path

from billing.catalog import lint_folder

LISTS = Path(__file__).parents[3] / "examples" / "price-lists"
TEXT = (LISTS / "cny-list.yaml").read_text(encoding="utf-8")
MODELS = [
    "deepseek-flash",
    "deepseek-v4-flash",
    "deepseek-v4-pro",
    "deepseek-v3.2",
    "qwen3.8-max",
    "qwen3.8-flash",
    "qwen3.7-max",
    "qwen3-coder-plus",
    "qwen-plus-latest",
    "glm-5.3",
    "glm-5.3-flash",
    "kimi-k3",
    "kimi-k3.1-pro",
    "kimi-k2.5",
    "MiniMax-M3",
    "MiniMax-M2.5",
    "doubao-seed-2-1-pro-260915",
    "doubao-seed-2-1-lite-260915",
    "doubao-seed-2-0-pro-260215",
    "mimo-v2.6-pro",
    "qwen-image-3.0",
    "speech-2.6-hd",
    "qwen3-tts-flash",
    "doubao-seedance-2-5-260628",
    "wan3.0-video",
    "MiniMax-H3",
]
"""Models of Chinese makers in the market's price map."""


def test_every_model_is_priced_in_yuan_or_named_as_not_priced() -> None:
    catalog, findings = lint_folder(LISTS)
    assert findings == ()
    (book,) = catalog.price_books
    assert book.currency == "CNY"
    priced = {row.model for row in book.rows}
    rest = TEXT[TEXT.index("# Not in this list") :]
    for model in MODELS:
        named = re.search(rf"(?<![\w.-]){re.escape(model)}(?![\w-])", rest) is not None
        assert (model in priced) != named, model


def test_every_price_has_a_source_and_a_date() -> None:
    rows = TEXT[TEXT.index("\nrows:") : TEXT.index("# Not in this list")]
    blocks = [block for block in re.split(r"\n\s*\n", rows) if "per_million" in block]
    assert len(blocks) == 5
    for block in blocks:
        comment = " ".join(line.strip(" #") for line in block.splitlines() if line.strip().startswith("#"))
        assert "Source" in comment
        assert re.search(r"\d{4}-\d{2}-\d{2}|Source and date as GLM-5\.3", comment), comment
