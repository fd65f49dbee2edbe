"""The table of DeepSeek's usage object."""

from schemas.dialects.dialect_table import Dialect, Role, from_source
from schemas.dialects.provider_openai import CHAT_INPUT, CHAT_NEEDS, CHAT_OUTPUT, CHAT_TOTALS

DEEPSEEK_API = "https://api-docs.deepseek.com/api/create-chat-completion"

DEEPSEEK = Dialect(
    name="deepseek",
    version=2,
    title="DeepSeek API",
    needs=CHAT_NEEDS,
    rows=(
        *CHAT_TOTALS,
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *from_source(DEEPSEEK_API, {"prompt_cache_hit_tokens": Role.CACHED, "prompt_cache_miss_tokens": Role.UNCACHED}),
    ),
    notes="As openai.chat; prompt_cache_hit_tokens and prompt_cache_miss_tokens add up to prompt_tokens.",
)
