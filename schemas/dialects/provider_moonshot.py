"""The table of Kimi, Moonshot's API."""

from schemas.dialects.dialect_table import Dialect, Role, from_source
from schemas.dialects.provider_openai import (
    CHAT_INPUT,
    CHAT_NEEDS,
    CHAT_OUTPUT,
    TOKEN_NEEDS,
    input_details,
    output_details,
)

_CHAT = "https://platform.moonshot.ai/docs/api/chat"
_RESPONSES = "https://platform.moonshot.ai/docs/api/responses"

MOONSHOT = Dialect(
    name="moonshot",
    version=1,
    title="Kimi (Moonshot): Chat Completions and Responses API",
    needs=(*CHAT_NEEDS[:2], *TOKEN_NEEDS),
    rows=(
        *from_source(
            _CHAT,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "cached_tokens": Role.CACHED,
            },
        ),
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *from_source(_RESPONSES, {"input_tokens": Role.INPUT, "output_tokens": Role.OUTPUT}),
        *input_details(_RESPONSES, "input_tokens_details"),
        *output_details(_RESPONSES, "output_tokens_details"),
    ),
    notes="cached_tokens, at the top level or in the details, is part of the input. The Anthropic endpoint of Kimi is "
    "the dialect anthropic.",
)
