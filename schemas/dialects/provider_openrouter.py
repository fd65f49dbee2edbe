"""The table of OpenRouter's usage object, which is the same for all providers behind it."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS, TOKEN_NEEDS, input_details, output_details

_ACCOUNTING = "https://openrouter.ai/docs/use-cases/usage-accounting"
_CACHING = "https://openrouter.ai/docs/features/prompt-caching"
_RESPONSES = "https://openrouter.ai/docs/api/reference/responses/basic-usage"
_TOOLS = "https://openrouter.ai/docs/guides/features/server-tools"

_MONEY = "money that OpenRouter or the provider behind it charges, not a count"
_CALLS = "calls of all tools, those that are billed included"

OPENROUTER = Dialect(
    name="openrouter",
    version=1,
    title="OpenRouter: chat and Responses API",
    needs=(*CHAT_NEEDS[:2], *TOKEN_NEEDS),
    rows=(
        *from_source(
            _ACCOUNTING, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
        ),
        *input_details(_CACHING, "prompt_tokens_details"),
        *output_details(_ACCOUNTING, "completion_tokens_details"),
        *from_source(_RESPONSES, {"input_tokens": Role.INPUT, "output_tokens": Role.OUTPUT}),
        *input_details(_RESPONSES, "input_tokens_details"),
        *output_details(_RESPONSES, "output_tokens_details"),
        *counted(
            _TOOLS,
            {
                "server_tool_use.web_search_requests": "searches",
                "server_tool_use_details.web_search_requests": "searches",
            },
        ),
        *not_billed(
            _TOOLS,
            _CALLS,
            "server_tool_use_details.tool_calls_requested",
            "server_tool_use_details.tool_calls_executed",
        ),
        *not_billed(
            _ACCOUNTING,
            _MONEY,
            "cost",
            "cost_details.upstream_inference_cost",
            "cost_details.upstream_inference_prompt_cost",
            "cost_details.upstream_inference_completions_cost",
            "cost_details.*",
        ),
    ),
    notes="As openai.chat whatever the provider: tokens read from and written to the cache are part of prompt_tokens, "
    "reasoning tokens of completion_tokens.",
)
