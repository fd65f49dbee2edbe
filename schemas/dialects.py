"""Conversion of providers' usage objects to disjoint meters: the parts add up to the total, and none is negative.

Providers include cached tokens in the input count and reasoning tokens in the output count, and omit what they do not
know. Each dialect function here applies one provider's rule of inclusion; two shared functions do the splitting
(docs/reference/usage-events.md, "Dialects").

- An absent or null count is 0. Tokens without details count as uncached text that is not reasoning.
- Negative counts, parts greater than their total, totals that do not add up, and two names of the same count with
  different values are ``usage_mismatch``. So is an object without any of its dialect's totals, unless it is empty.
- If an object has cached tokens and image, audio or video tokens, and no detail says which of them were cached, the
  cached tokens are taken from the text first. If the text has fewer, the overlap is unknown: ``usage_mismatch``.
- Cached video has no built-in meter. It becomes ``video_cache_read``, which is unknown unless a book declares it.
- Fields that measure the same tokens in another unit (characters, images, seconds of LiteLLM) are ignored, because
  otherwise they would be charged twice. Web searches are additional and become ``searches``.
- Streaming usage is cumulative, and the emitter sends the last object. Nothing is summed here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.counts import check_count
from schemas.fields import show
from schemas.meters import Counts, canonical_counts
from schemas.refusals import Refused


def _mismatch(detail: str) -> Refused:
    return Refused("usage_mismatch", detail)


class _Object:
    """One JSON object inside a usage object, with its path for messages."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.path = path
        self.body = body

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def find(self, name: str) -> int | None:
        value = self.body.get(name)
        return None if value is None else check_count(self.at(name), value)

    def count(self, *names: str) -> int:
        """Return one count that may have several names; zeros are treated as absent, other values must agree."""
        return _agree(*((self.at(name), self.find(name) or 0) for name in names))

    def part(self, name: str) -> "_Object":
        value = self.body.get(name)
        if value is None:
            return _Object(self.at(name), {})
        if not isinstance(value, dict):
            raise Refused("invalid_event", f"{self.at(name)} is {show(value)}: expected an object of counts")
        return _Object(self.at(name), value)

    def need_one(self, *names: str) -> None:
        """Refuse an object of another dialect: one that has fields, but none of these."""
        if self.body and not any(name in self.body for name in names):
            raise _mismatch(f"{self.path} has none of {', '.join(names)}, which its dialect counts")


def _agree(*found: tuple[str, int]) -> int:
    """Return the value on which several names of the same count agree; zeros are treated as absent."""
    given = [(name, count) for name, count in found if count]
    for name, count in given[1:]:
        if count != given[0][1]:
            raise _mismatch(f"{given[0][0]} is {given[0][1]} but {name} is {count}: they name the same count")
    return given[0][1] if given else 0


def _need_total(field: str, total: int | None, expected: int, parts: str) -> None:
    """Refuse a total that is present and differs from the sum of its parts."""
    if total is not None and total != expected:
        raise _mismatch(f"{field} is {total}: {parts} add up to {expected}")


@dataclass(frozen=True, slots=True)
class _Input:
    """Input counts of a dialect. ``total`` includes all others; ``text`` is None if it is not given.

    ``cached_*`` are the parts of ``cached`` by modality; ``cached_text`` is None if it is not given.
    ``text_leaves_out_cache`` allows a ``text`` that excludes tokens read from or written to a cache.
    """

    name: str
    total: int
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    text: int | None = None
    audio: int = 0
    image: int = 0
    video: int = 0
    cached_text: int | None = None
    cached_audio: int = 0
    cached_image: int = 0
    cached_video: int = 0
    text_leaves_out_cache: bool = False


def _split_input(given: _Input) -> dict[str, int]:
    """Split an inclusive input total into disjoint meters that add up to it."""
    name, total = given.name, given.total
    media = given.audio + given.image + given.video
    known_media = given.cached_audio + given.cached_image + given.cached_video
    known = known_media + (given.cached_text or 0)
    cached = given.cached or known
    if media > total:
        raise _mismatch(f"{name} is {total}: its audio, image and video tokens are {media}, more than the whole")
    if cached + given.written > total:
        raise _mismatch(
            f"{name} is {total}: its cached ({cached}) and cache-written ({given.written}) tokens "
            "are more than the whole"
        )
    if given.written_1h > given.written:
        raise _mismatch(f"{name}: {given.written_1h} tokens cached for an hour are more than {given.written} written")
    for kind, part, whole in (
        ("audio", given.cached_audio, given.audio),
        ("image", given.cached_image, given.image),
        ("video", given.cached_video, given.video),
    ):
        if part > whole:
            raise _mismatch(f"{name}: {part} cached {kind} tokens are more than its {whole} {kind} tokens")
    if known > cached or (known and given.cached_text is not None and known != cached):
        raise _mismatch(f"{name}: its cached tokens are {cached}, their details by kind add up to {known}")
    if given.text:
        sums = {total}
        if given.text_leaves_out_cache:
            sums |= {total - cached, total - cached - given.written}
        if given.text + media not in sums:
            raise _mismatch(f"{name} is {total}: its text, audio, image and video tokens are {given.text + media}")
    text = total - media
    cached_text = cached - known_media
    if cached_text + given.written > text:
        raise _mismatch(
            f"{name}: {cached_text} cached and {given.written} cache-written tokens do not fit its {text} text tokens, "
            "and no detail says which audio, image or video tokens were cached"
        )
    return {
        "input": text - cached_text - given.written,
        "cache_read": cached_text,
        "cache_write": given.written - given.written_1h,
        "cache_write_1h": given.written_1h,
        "audio_input": given.audio - given.cached_audio,
        "audio_cache_read": given.cached_audio,
        "image_input": given.image - given.cached_image,
        "image_cache_read": given.cached_image,
        "video_input": given.video - given.cached_video,
        "video_cache_read": given.cached_video,
    }


def _split_output(name: str, total: int, details: _Object, reasoning: int) -> dict[str, int]:
    """Split an inclusive output total; a text part, if given, may or may not include the reasoning."""
    audio, image = details.count("audio_tokens"), details.count("image_tokens")
    video, text = details.count("video_tokens"), details.count("text_tokens")
    media = audio + image + video
    if media + reasoning > total:
        raise _mismatch(
            f"{name} is {total}: its reasoning ({reasoning}) and audio, image and video tokens ({media}) "
            "are more than the whole"
        )
    if text and text + media not in (total, total - reasoning):
        raise _mismatch(
            f"{name} is {total}: its text ({text}), media ({media}) and reasoning ({reasoning}) do not add up"
        )
    predicted = details.count("accepted_prediction_tokens") + details.count("rejected_prediction_tokens")
    if predicted > total:
        raise _mismatch(f"{name} is {total}: its prediction tokens are {predicted}, more than the whole")
    return {
        "output": total - media - reasoning,
        "reasoning": reasoning,
        "audio_output": audio,
        "image_output": image,
        "video_output": video,
    }


def _openai_input(name: str, total: int, details: _Object, **more: Any) -> _Input:
    """Read input details with OpenAI's field names, with the cached part by modality if it is given."""
    kinds = details.part("cached_tokens_details")
    text = kinds.find("text_tokens")
    fields: dict[str, Any] = {
        "cached": details.count("cached_tokens"),
        "written": details.count("cache_write_tokens", "cache_creation_tokens"),
        "text": details.find("text_tokens"),
        "audio": details.count("audio_tokens"),
        "image": details.count("image_tokens"),
        "video": details.count("video_tokens"),
        "cached_text": details.find("cached_text_tokens") if text is None else text,
    }
    for kind in ("audio", "image", "video"):
        flat, nested = f"cached_{kind}_tokens", f"{kind}_tokens"
        fields[f"cached_{kind}"] = _agree(
            (details.at(flat), details.count(flat)), (kinds.at(nested), kinds.count(nested))
        )
    return _Input(name, total, **{**fields, **more})


def _chat(usage: _Object, *, reasoning: int = 0, **more: Any) -> dict[str, int]:
    """Split a usage with the field names of OpenAI's chat API; arguments add what a dialect has in other fields."""
    usage.need_one("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion = usage.count("prompt_tokens"), usage.count("completion_tokens")
    _need_total(
        usage.at("total_tokens"), usage.find("total_tokens"), prompt + completion, "prompt_tokens and completion_tokens"
    )
    details = usage.part("completion_tokens_details")
    thought = _agree(
        (details.at("reasoning_tokens"), details.count("reasoning_tokens")), (usage.at("reasoning_tokens"), reasoning)
    )
    given = _openai_input(usage.at("prompt_tokens"), prompt, usage.part("prompt_tokens_details"), **more)
    return {**_split_input(given), **_split_output(usage.at("completion_tokens"), completion, details, thought)}


def _openai_chat(usage: _Object) -> dict[str, int]:
    """OpenAI chat: cached tokens are part of prompt_tokens, reasoning tokens of completion_tokens."""
    return _chat(usage)


def _openai_responses(usage: _Object) -> dict[str, int]:
    """OpenAI responses: like chat, but the inclusive totals are input_tokens and output_tokens."""
    usage.need_one("input_tokens", "output_tokens", "total_tokens")
    received, made = usage.count("input_tokens"), usage.count("output_tokens")
    _need_total(usage.at("total_tokens"), usage.find("total_tokens"), received + made, "input_tokens and output_tokens")
    details = usage.part("output_tokens_details")
    given = _openai_input(usage.at("input_tokens"), received, usage.part("input_tokens_details"))
    reasoning = details.count("reasoning_tokens")
    return {**_split_input(given), **_split_output(usage.at("output_tokens"), made, details, reasoning)}


def _written(total_name: str, total: int, lives: _Object) -> tuple[int, int]:
    """Return the tokens written to a cache, and how many of them live one hour; the rest live five minutes."""
    short, hour = lives.find("ephemeral_5m_input_tokens"), lives.find("ephemeral_1h_input_tokens")
    parts = (short or 0) + (hour or 0)
    if not total:
        return parts, hour or 0
    if parts and (parts > total or (short is not None and parts != total)):
        raise _mismatch(f"{total_name} is {total}: its 5-minute and 1-hour parts add up to {parts}")
    return total, hour or 0


def _anthropic(usage: _Object) -> dict[str, int]:
    """Anthropic: input_tokens excludes tokens read from or written to the cache; output_tokens includes thinking."""
    usage.need_one("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    fresh, made, read = (usage.count(name) for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"))
    name = "cache_creation_input_tokens"
    written, written_1h = _written(usage.at(name), usage.count(name), usage.part("cache_creation"))
    total = fresh + read + written
    _need_total(usage.at("total_tokens"), usage.find("total_tokens"), total + made, "input, cache and output tokens")
    details = usage.part("output_tokens_details")
    given = _Input(usage.at("input_tokens"), total, cached=read, written=written, written_1h=written_1h)
    return {
        **_split_input(given),
        **_split_output(usage.at("output_tokens"), made, details, details.count("thinking_tokens", "reasoning_tokens")),
        "searches": usage.part("server_tool_use").count("web_search_requests"),
    }


def _deepseek(usage: _Object) -> dict[str, int]:
    """DeepSeek: like chat; prompt_cache_hit_tokens + prompt_cache_miss_tokens = prompt_tokens."""
    usage.need_one("prompt_tokens", "completion_tokens", "total_tokens")
    prompt = usage.count("prompt_tokens")
    hit, miss = usage.find("prompt_cache_hit_tokens"), usage.find("prompt_cache_miss_tokens")
    cached = hit or 0
    if miss is not None:
        if hit is not None:
            _need_total(usage.at("prompt_tokens"), prompt, hit + miss, "cache hits and misses")
        elif miss > prompt:
            raise _mismatch(f"{usage.at('prompt_cache_miss_tokens')} is {miss}, more than prompt_tokens, {prompt}")
        else:
            cached = prompt - miss
    details = usage.part("prompt_tokens_details")
    cached = _agree(
        (details.at("cached_tokens"), details.count("cached_tokens")), (usage.at("prompt_cache_hit_tokens"), cached)
    )
    return _chat(usage, cached=cached)


def _vllm(usage: _Object) -> dict[str, int]:
    """vLLM: like chat; details only with --enable-prompt-tokens-details, media under multimodal_tokens."""
    details = usage.part("prompt_tokens_details")
    media = details.part("multimodal_tokens")
    for kind in media.body:
        if kind not in ("audio", "image", "video") and media.count(kind):
            raise _mismatch(f"{media.at(kind)}: {show(kind)} tokens have no meter")
    more = {
        kind: _agree(
            (media.at(kind), media.count(kind)), (details.at(f"{kind}_tokens"), details.count(f"{kind}_tokens"))
        )
        for kind in ("audio", "image", "video")
    }
    return _chat(usage, written=details.count("created_cache_tokens", "cache_write_tokens"), **more)


def _sglang(usage: _Object) -> dict[str, int]:
    """SGLang: like chat; reasoning_tokens is at the top level, details only with --enable-cache-report."""
    return _chat(usage, reasoning=usage.count("reasoning_tokens"))


def _otel(usage: _Object) -> dict[str, int]:
    """OpenTelemetry attributes ``gen_ai.usage.*``: cached and reasoning tokens are parts of the totals.

    Older names and Sentry's names are accepted too.
    """
    root = "gen_ai.usage."
    received_names = (f"{root}input_tokens", f"{root}prompt_tokens")
    made_names = (f"{root}output_tokens", f"{root}completion_tokens")
    usage.need_one(*received_names, *made_names)
    received, made = usage.count(*received_names), usage.count(*made_names)
    total_name = f"{root}total_tokens"
    _need_total(usage.at(total_name), usage.find(total_name), received + made, "input and output tokens")
    cached = usage.count(
        f"{root}cache_read.input_tokens", f"{root}cache_read_input_tokens", f"{root}input_tokens.cached"
    )
    written = usage.count(
        f"{root}cache_creation.input_tokens",
        f"{root}cache_creation_input_tokens",
        f"{root}input_tokens.cache_write",
    )
    reasoning = usage.count(f"{root}reasoning.output_tokens", f"{root}output_tokens.reasoning")
    given = _Input(usage.at(received_names[0]), received, cached=cached, written=written)
    details = _Object(usage.path, {})
    return {**_split_input(given), **_split_output(usage.at(made_names[0]), made, details, reasoning)}


def _litellm(usage: _Object) -> dict[str, int]:
    """LiteLLM: like chat; prompt_tokens includes tokens read from or written to the cache.

    The cache counts may appear once or under several names.
    """
    details = usage.part("prompt_tokens_details")
    cached = _agree(
        (details.at("cached_tokens"), details.count("cached_tokens")),
        (usage.at("cache_read_input_tokens"), usage.count("cache_read_input_tokens")),
        (usage.at("prompt_cache_hit_tokens"), usage.count("prompt_cache_hit_tokens")),
    )
    written_name = details.at("cache_creation_tokens")
    written_total = _agree(
        (written_name, details.count("cache_creation_tokens", "cache_write_tokens")),
        (usage.at("cache_creation_input_tokens"), usage.count("cache_creation_input_tokens")),
    )
    written, written_1h = _written(written_name, written_total, details.part("cache_creation_token_details"))
    tools = usage.part("server_tool_use")
    searches = _agree(
        (details.at("web_search_requests"), details.count("web_search_requests")),
        (tools.at("web_search_requests"), tools.count("web_search_requests")),
    )
    split = _chat(usage, cached=cached, written=written, written_1h=written_1h, text_leaves_out_cache=True)
    return {**split, "searches": searches}


_READERS: dict[str, Callable[[_Object], dict[str, int]]] = {
    "openai.chat": _openai_chat,
    "openai.responses": _openai_responses,
    "anthropic": _anthropic,
    "deepseek": _deepseek,
    "vllm": _vllm,
    "sglang": _sglang,
    "otel": _otel,
    "litellm": _litellm,
}

DIALECTS: tuple[str, ...] = tuple(_READERS)
"""The values of ``usage_dialect``."""


def disjoint_counts(dialect: str, usage: dict[str, Any], path: str = "data.usage") -> Counts:
    """Convert a provider's usage object to disjoint counts in canonical order, without zeros.

    Args:
        dialect: one of :data:`DIALECTS`.
        usage: the object as received; unknown fields are ignored.
        path: the path of the object, for messages.

    Raises:
        Refused: ``invalid_event`` (unknown dialect, a count that is not an integer), ``usage_mismatch`` or
            ``overflow``.
    """
    reader = _READERS.get(dialect)
    if reader is None:
        known = ", ".join(DIALECTS)
        raise Refused("invalid_event", f"data.usage_dialect is {show(dialect)}: expected one of {known}")
    return canonical_counts(reader(_Object(path, usage)))
