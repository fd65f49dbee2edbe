"""Prices of units other than tokens in LiteLLM's map: images, seconds, characters, pages, searches.

One source field is one meter. If the built-in meters cannot distinguish two prices (videos of 720p and of 4k, images
received and made), the book declares meters of its own.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from billing.catalog.importers.litellm_source import BATCH_SUFFIX, Entry, as_price
from billing.catalog.importers.values import times

REPLACED = "LiteLLM bills by another field of the same key"
_SIZE = re.compile(r"(\d+)-x-(\d+)")
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_RESOLUTION = re.compile(r"output_cost_per_second_([0-9]+[a-z])")
_IMAGE_SIZE = re.compile(r"output_cost_per_image_([0-9.]+K?)")
_THOUSANDTH = Decimal("0.001")
_PER_UNIT = {
    "input_cost_per_character": "characters",
    "output_cost_per_character": "output_characters",
    "input_cost_per_request": "requests",
    "input_cost_per_text_message": "text_messages",
    "ocr_cost_per_page": "pages",
    "annotation_cost_per_page": "annotation_pages",
    "ocr_cost_per_credit": "credits",
    "code_interpreter_cost_per_session": "code_interpreter_sessions",
    "output_cost_per_pixel": "output_pixels",
}
_PER_SECOND = {
    "input_cost_per_audio_per_second": "audio_input_milliseconds",
    "input_cost_per_video_per_second": "video_input_milliseconds",
}
_SECONDS = ("output_cost_per_video_per_second", "output_cost_per_second", "input_cost_per_second", "cost_per_second")
_PER_PROMPT_PROVIDERS = ("gemini", "vertex_ai", "vertex_ai-language-models")
_SEARCH = "search_context_cost_per_query"
_SIZES = ("low", "medium", "high")
Units = dict[str, tuple[str, Decimal]]
"""By meter: the field it comes from, and the price of one unit."""


def unit_prices(entry: Entry) -> Units:
    """Return the prices of an entry for units other than tokens. A price is zero only if the map states zero."""
    found: Units = {}
    for name, meter in _PER_UNIT.items():
        _add(found, meter, name, entry.price(name))
    for name, meter in _PER_SECOND.items():
        _add(found, meter, name, _of_millisecond(entry.price(name)))
    for name in list(entry.prices):
        if match := _RESOLUTION.fullmatch(name):
            _add(found, f"milliseconds_{match[1]}", name, _of_millisecond(entry.price(name)))
        elif match := _IMAGE_SIZE.fullmatch(name):
            _add(found, f"images_{match[1].lower().replace('.', '_')}", name, entry.price(name))
    _add_seconds(found, entry)
    _add_images(found, entry)
    _add_searches(found, entry)
    guardrails = entry.raw("guardrail_cost_per_unit")
    for name, value in guardrails.items() if isinstance(guardrails, Mapping) else ():
        meter = "guardrail_" + _SNAKE.sub("_", name).lower()
        _add(found, meter, f"guardrail_cost_per_unit.{name}", as_price(value))
    return found


def batch_unit_prices(entry: Entry) -> Units:
    """Return the prices for units other than tokens that differ in a batch: those of pages."""
    found: Units = {}
    for name in ("ocr_cost_per_page", "annotation_cost_per_page"):
        _add(found, _PER_UNIT[name], name + BATCH_SUFFIX, entry.price(name + BATCH_SUFFIX))
    return found


def _add(found: Units, meter: str, name: str, price: Decimal | None) -> None:
    if price is not None:
        found[meter] = (name, price)


def _of_millisecond(price: Decimal | None) -> Decimal | None:
    return None if price is None else times(price, _THOUSANDTH)


def _add_seconds(found: Units, entry: Entry) -> None:
    """Add the first price per second that is not zero, output before input: LiteLLM never bills both."""
    given = [(name, price) for name in _SECONDS if (price := entry.price(name)) is not None]
    if not given:
        return
    chosen, price = next(((n, p) for n, p in given if p), given[0])
    _add(found, "milliseconds", chosen, _of_millisecond(price))
    for name, other in given:
        if other and other != price:
            entry.leave_out(name, REPLACED, chosen)


def _add_images(found: Units, entry: Entry) -> None:
    """Add the prices of images.

    ``images`` are the images made. Images received are also ``images`` if only they have a price, else
    ``input_images``.
    """
    made, received = entry.price("output_cost_per_image"), entry.price("input_cost_per_image")
    if made is not None and (made or not received):
        _add(found, "images", "output_cost_per_image", made)
        if received:
            _add(found, "input_images", "input_cost_per_image", received)
    else:
        _add(found, "images", "input_cost_per_image", received)
    per_pixel = entry.price("input_cost_per_pixel")
    size = _SIZE.search(entry.key)
    if per_pixel is None or size is None:
        _add(found, "pixels", "input_cost_per_pixel", per_pixel)
    elif "images" in found and found["images"][1]:
        entry.leave_out("input_cost_per_pixel", REPLACED, found["images"][0])
    else:  # the key contains the size of an image in pixels
        price = times(per_pixel, int(size[1]) * int(size[2]))
        _add(found, "images", "input_cost_per_pixel", price)


def _add_searches(found: Units, entry: Entry) -> None:
    """Add prices per search, or per prompt that was grounded by any number of searches, as the provider counts them."""
    per_prompt = entry.provider in _PER_PROMPT_PROVIDERS and entry.raw("web_search_billing_unit") != "per_query"
    _add(found, "searches", "input_cost_per_query", entry.price("input_cost_per_query"))
    maps = "google_maps_grounding_cost_per_query"
    _add(found, "maps_grounded_prompts" if per_prompt else "maps_queries", maps, entry.price(maps))
    table = entry.raw(_SEARCH)
    if not isinstance(table, Mapping):
        return
    prices = {size: as_price(table.get(f"search_context_size_{size}")) for size in _SIZES}
    default = "low" if entry.provider == "perplexity" else "medium"
    meter = "grounded_prompts" if per_prompt else "searches"
    if meter in found:
        entry.leave_out(_SEARCH, REPLACED, found[meter][0])
        return
    _add(found, meter, f"{_SEARCH}.search_context_size_{default}", prices[default])
    if len({price for price in prices.values() if price is not None}) > 1:
        for size, price in prices.items():
            _add(found, f"{meter}_{size}", f"{_SEARCH}.search_context_size_{size}", price)
