"""Tables of xAI: the chat API, whose completion tokens leave the reasoning out, and the Responses API."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS, TOKEN_NEEDS

_REASONING = "https://docs.x.ai/docs/guides/reasoning"
_CACHING = "https://docs.x.ai/developers/advanced-api-usage/prompt-caching/usage-and-pricing"
_COST = "https://docs.x.ai/developers/cost-tracking"
_TOOLS = "https://docs.x.ai/developers/tools/tool-usage-details"
_PRICES = "https://docs.x.ai/developers/pricing"

_MONEY = "money that xAI charges, not a count"

_TOOL_ROWS: tuple[LeafRow, ...] = (
    *counted(
        _PRICES,
        {
            "server_side_tool_usage_details.web_search_calls": "searches",
            "server_side_tool_usage_details.x_search_calls": "searches",
        },
        add=True,
    ),
    *counted(
        _PRICES,
        {
            "server_side_tool_usage_details.code_interpreter_calls": "code_executions",
            "server_side_tool_usage_details.file_search_calls": "file_searches",
            "server_side_tool_usage_details.document_search_calls": "document_searches",
            "server_side_tool_usage_details.image_generation_calls": "image_generations",
            "server_side_tool_usage_details.x_posts_fetched": "x_posts",
            "server_side_tool_usage_details.x_users_fetched": "x_users",
            "num_sources_used": "sources",
        },
    ),
    *not_billed(_PRICES, "a call costs its tokens only", "server_side_tool_usage_details.mcp_calls"),
    *not_billed(_TOOLS, "the sum of the calls of all tools", "num_server_side_tools_used"),
    *not_billed(
        _TOOLS,
        "the last step of the request, a part of the counts at the top",
        "context_details.input_tokens",
        "context_details.output_tokens",
    ),
    *not_billed(_COST, _MONEY, "cost_in_usd_ticks"),
)
"""Rows of both APIs. A call that has no built-in meter becomes one that a price book declares."""

XAI = Dialect(
    name="xai",
    version=1,
    title="xAI Chat Completions API",
    needs=CHAT_NEEDS,
    rows=(
        *from_source(
            _REASONING,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "completion_tokens_details.reasoning_tokens": Role.REASONING,
                "completion_tokens_details.text_tokens": Role.TEXT_OUTPUT,
                "completion_tokens_details.audio_tokens": Role.AUDIO_OUTPUT,
                "completion_tokens_details.image_tokens": Role.IMAGE_OUTPUT,
            },
        ),
        *from_source(
            _CACHING,
            {
                "prompt_tokens_details.cached_tokens": Role.CACHED,
                "prompt_tokens_details.text_tokens": Role.TEXT_INPUT,
                "prompt_tokens_details.audio_tokens": Role.AUDIO_INPUT,
                "prompt_tokens_details.image_tokens": Role.IMAGE_INPUT,
            },
        ),
        *from_source(
            _REASONING,
            {
                "completion_tokens_details.accepted_prediction_tokens": Role.PREDICTED,
                "completion_tokens_details.rejected_prediction_tokens": Role.PREDICTED,
            },
            add=True,
        ),
        *_TOOL_ROWS,
    ),
    output_includes_reasoning=False,
    totals=((Role.INPUT, Role.OUTPUT, Role.REASONING),),
    forms=("xai.responses",),
    notes="reasoning_tokens is no part of completion_tokens and is part of total_tokens. Cached tokens are part of "
    "prompt_tokens, and of text_tokens.",
)

XAI_RESPONSES = Dialect(
    name="xai.responses",
    version=1,
    title="xAI Responses API",
    needs=TOKEN_NEEDS[:2],
    rows=(
        *from_source(
            _CACHING,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "input_tokens_details.cached_tokens": Role.CACHED,
                "input_tokens_details.text_tokens": Role.TEXT_INPUT,
                "input_tokens_details.audio_tokens": Role.AUDIO_INPUT,
                "input_tokens_details.image_tokens": Role.IMAGE_INPUT,
                "output_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *_TOOL_ROWS,
    ),
    notes="reasoning_tokens is part of output_tokens, unlike in the chat API.",
)
