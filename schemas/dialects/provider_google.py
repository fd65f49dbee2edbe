"""Tables of Gemini: ``usageMetadata`` in its spellings and the usage of an interaction, and its OpenAI endpoint."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS

_USAGE_METADATA = "https://ai.google.dev/api/generate-content#UsageMetadata"
_LIVE = "https://ai.google.dev/api/live#usagemetadata"
_VERTEX = "https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse"
_PYTHON_SDK = "https://googleapis.github.io/python-genai/genai.html#genai.types.GenerateContentResponseUsageMetadata"
_INTERACTIONS = "https://ai.google.dev/gemini-api/docs/interactions"
_OPENAI = "https://ai.google.dev/gemini-api/docs/openai"
_OPENAI_REPORT = (
    "https://discuss.ai.google.dev/t/endpoint-https-generativelanguage-googleapis-com-v1beta-openai-chat-completions"
    "-is-not-compliant-with-api-specs/127400"
)

_INPUT_KINDS = {
    "TEXT": Role.TEXT_INPUT,
    "DOCUMENT": Role.TEXT_INPUT,
    "AUDIO": Role.AUDIO_INPUT,
    "IMAGE": Role.IMAGE_INPUT,
    "VIDEO": Role.VIDEO_INPUT,
}
_CACHED_KINDS = {
    "TEXT": Role.CACHED_TEXT,
    "DOCUMENT": Role.CACHED_TEXT,
    "AUDIO": Role.CACHED_AUDIO,
    "IMAGE": Role.CACHED_IMAGE,
    "VIDEO": Role.CACHED_VIDEO,
}
_OUTPUT_KINDS = {
    "TEXT": Role.TEXT_OUTPUT,
    "AUDIO": Role.AUDIO_OUTPUT,
    "IMAGE": Role.IMAGE_OUTPUT,
    "VIDEO": Role.VIDEO_OUTPUT,
}
_TOOL = "tool"
"""The group of the input that tools gave back to the model, which is no part of the prompt's count."""

_SAME_INPUT = "the same input in another unit"


def _kinds(
    source: str, place: str, count: str, roles: dict[str, Role], *, group: str = "", lower: bool = False
) -> tuple[LeafRow, ...]:
    """Return the rows of a list of counts by modality; a document is text, so the two are added."""
    return tuple(
        LeafRow(f"{place}[modality={kind.lower() if lower else kind}].{count}", role, source, group=group, add=True)
        for kind, role in roles.items()
    )


def _metadata(source: str, names: dict[str, str], *, lower: bool = False) -> tuple[LeafRow, ...]:
    """Return the rows of ``usageMetadata`` with the names that one spelling gives to them."""
    return (
        *from_source(
            source,
            {
                names["prompt"]: Role.INPUT,
                names["cached"]: Role.CACHED,
                names["candidates"]: Role.OUTPUT,
                names["thoughts"]: Role.REASONING,
                names["total"]: Role.TOTAL,
            },
        ),
        *from_source(source, {names["tool"]: Role.INPUT}, group=_TOOL),
        *_kinds(source, names["prompt_kinds"], names["count"], _INPUT_KINDS, lower=lower),
        *_kinds(source, names["cached_kinds"], names["count"], _CACHED_KINDS, lower=lower),
        *_kinds(source, names["candidates_kinds"], names["count"], _OUTPUT_KINDS, lower=lower),
        *_kinds(source, names["tool_kinds"], names["count"], _INPUT_KINDS, group=_TOOL, lower=lower),
    )


_CAMEL = {
    "prompt": "promptTokenCount",
    "cached": "cachedContentTokenCount",
    "candidates": "candidatesTokenCount",
    "thoughts": "thoughtsTokenCount",
    "tool": "toolUsePromptTokenCount",
    "total": "totalTokenCount",
    "prompt_kinds": "promptTokensDetails",
    "cached_kinds": "cacheTokensDetails",
    "candidates_kinds": "candidatesTokensDetails",
    "tool_kinds": "toolUsePromptTokensDetails",
    "count": "tokenCount",
}
"""The names of the JSON APIs."""
_SNAKE = {
    "prompt": "prompt_token_count",
    "cached": "cached_content_token_count",
    "candidates": "candidates_token_count",
    "thoughts": "thoughts_token_count",
    "tool": "tool_use_prompt_token_count",
    "total": "total_token_count",
    "prompt_kinds": "prompt_tokens_details",
    "cached_kinds": "cache_tokens_details",
    "candidates_kinds": "candidates_tokens_details",
    "tool_kinds": "tool_use_prompt_tokens_details",
    "count": "token_count",
}
"""The names of Google's Python SDK."""

_INTERACTION = {
    "prompt": "total_input_tokens",
    "cached": "total_cached_tokens",
    "candidates": "total_output_tokens",
    "thoughts": "total_thought_tokens",
    "tool": "total_tool_use_tokens",
    "total": "total_tokens",
    "prompt_kinds": "input_tokens_by_modality",
    "cached_kinds": "cached_tokens_by_modality",
    "candidates_kinds": "output_tokens_by_modality",
    "tool_kinds": "tool_use_tokens_by_modality",
    "count": "tokens",
}
"""The names of the Interactions API, which writes modalities in lower case."""

GEMINI = Dialect(
    name="gemini",
    version=1,
    title="Gemini API and Vertex AI: usageMetadata, usage_metadata, interactions",
    needs=tuple(
        names[count] for names in (_CAMEL, _SNAKE, _INTERACTION) for count in ("prompt", "candidates", "total")
    ),
    rows=(
        *_metadata(_USAGE_METADATA, _CAMEL),
        *from_source(_LIVE, {"responseTokenCount": Role.OUTPUT}),
        *_kinds(_LIVE, "responseTokensDetails", "tokenCount", _OUTPUT_KINDS),
        *_metadata(_PYTHON_SDK, _SNAKE),
        *from_source(_PYTHON_SDK, {"response_token_count": Role.OUTPUT}),
        *_kinds(_PYTHON_SDK, "response_tokens_details", "token_count", _OUTPUT_KINDS),
        *_metadata(_INTERACTIONS, _INTERACTION, lower=True),
        *not_billed(
            _VERTEX,
            _SAME_INPUT,
            "billablePromptUsage.textCount",
            "billablePromptUsage.imageCount",
            "billablePromptUsage.audioDurationSeconds",
            "billablePromptUsage.videoDurationSeconds",
        ),
    ),
    output_includes_reasoning=False,
    totals=((Role.INPUT, f"{_TOOL}/{Role.INPUT}", Role.OUTPUT, Role.REASONING),),
    forms=("gemini.openai",),
    notes="Cached content is part of the prompt. Thoughts are no part of the candidates and become reasoning; what "
    "tools gave back to the model is no part of the prompt and becomes input. Documents count as text.",
)

GEMINI_OPENAI = Dialect(
    name="gemini.openai",
    version=1,
    title="Gemini's OpenAI endpoint",
    needs=CHAT_NEEDS[:2],
    rows=(
        *from_source(
            _OPENAI_REPORT,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "completion_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *from_source(
            _OPENAI,
            {
                "prompt_tokens_details.cached_tokens": Role.CACHED,
                "prompt_tokens_details.text_tokens": Role.TEXT_INPUT,
                "prompt_tokens_details.audio_tokens": Role.AUDIO_INPUT,
                "prompt_tokens_details.image_tokens": Role.IMAGE_INPUT,
            },
        ),
    ),
    output_includes_reasoning=False,
    totals=((Role.INPUT, Role.OUTPUT, Role.REASONING),),
    rest_is_reasoning=True,
    notes="total_tokens has the thoughts, completion_tokens has not, and mostly nothing else gives them: what the "
    "total has beyond the two is reasoning.",
)
