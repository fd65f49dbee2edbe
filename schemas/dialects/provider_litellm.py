"""The table of LiteLLM's usage object."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import (
    CHAT_INPUT,
    CHAT_NEEDS,
    CHAT_OUTPUT,
    CHAT_TOTALS,
    LITELLM_TYPES,
    TOP_REASONING,
)

LITELLM = Dialect(
    name="litellm",
    version=2,
    title="LiteLLM",
    needs=CHAT_NEEDS,
    rows=(
        *CHAT_TOTALS,
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *TOP_REASONING,
        *from_source(
            LITELLM_TYPES,
            {
                "cache_read_input_tokens": Role.CACHED,
                "prompt_cache_hit_tokens": Role.CACHED,
                "cache_creation_input_tokens": Role.WRITTEN,
                "prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens": Role.WRITTEN_5M,
                "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens": Role.WRITTEN_1H,
            },
        ),
        *counted(
            LITELLM_TYPES,
            {
                "prompt_tokens_details.web_search_requests": "searches",
                "server_tool_use.web_search_requests": "searches",
            },
        ),
        *not_billed(
            LITELLM_TYPES,
            "the same input in another unit: its tokens are counted",
            "prompt_tokens_details.character_count",
            "prompt_tokens_details.image_count",
            "prompt_tokens_details.video_length_seconds",
            "prompt_tokens_details.audio_length_seconds",
        ),
        *not_billed(LITELLM_TYPES, "a price of LiteLLM's own table, not a count", "cost"),
    ),
    text_may_leave_out_cache=True,
    notes="As openai.chat; prompt_tokens includes tokens read from and written to the cache.",
)
