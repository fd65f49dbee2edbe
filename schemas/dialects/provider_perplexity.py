"""Tables of Perplexity: the Sonar API, whose totals leave the reasoning out, and the Agent API."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS, TOKEN_NEEDS

SONAR = "https://docs.perplexity.ai/api-reference/chat-completions-post"
_AGENT = "https://docs.perplexity.ai/api-reference/agent-post"
PRICING = "https://docs.perplexity.ai/getting-started/pricing"

_MONEY = "Perplexity's own price of the request, not a count"

PERPLEXITY = Dialect(
    name="perplexity",
    version=1,
    title="Perplexity Sonar API",
    needs=CHAT_NEEDS,
    rows=(
        *from_source(
            SONAR,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "reasoning_tokens": Role.REASONING,
            },
        ),
        *counted(SONAR, {"num_search_queries": "searches"}),
        *not_billed(
            PRICING,
            "billed for sonar-deep-research only; a book that bills them declares the meter citation_tokens",
            "citation_tokens",
            meter="citation_tokens",
        ),
        *not_billed(
            SONAR,
            _MONEY,
            "cost.input_tokens_cost",
            "cost.output_tokens_cost",
            "cost.reasoning_tokens_cost",
            "cost.citation_tokens_cost",
            "cost.search_queries_cost",
            "cost.request_cost",
            "cost.total_cost",
            "cost.*",
        ),
    ),
    output_includes_reasoning=False,
    forms=("perplexity.agent",),
    notes="Reasoning tokens are in neither completion_tokens nor total_tokens.",
)

PERPLEXITY_AGENT = Dialect(
    name="perplexity.agent",
    version=1,
    title="Perplexity Agent API (Responses)",
    needs=TOKEN_NEEDS[:2],
    rows=(
        *from_source(
            _AGENT,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "input_tokens_details.cached_tokens": Role.CACHED,
                "input_tokens_details.cache_read_input_tokens": Role.CACHED,
                "input_tokens_details.cache_creation_input_tokens": Role.WRITTEN,
                "output_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *counted(
            PRICING,
            {
                "tool_calls_details.search_web.invocation": "searches",
                "tool_calls_details.web_search.invocation": "searches",
                "tool_calls_details.fetch_url.invocation": "web_fetches",
                "tool_calls_details.search_people.invocation": "people_searches",
                "tool_calls_details.finance_search.invocation": "finance_searches",
            },
        ),
        *not_billed(
            _AGENT,
            _MONEY,
            "cost.*",
            "cost.tool_calls_cost_details.*",
            "tool_calls_details.search_web.cost_usd",
            "tool_calls_details.web_search.cost_usd",
            "tool_calls_details.fetch_url.cost_usd",
            "tool_calls_details.search_people.cost_usd",
            "tool_calls_details.finance_search.cost_usd",
        ),
    ),
    notes="Tokens read from and written to the cache are part of input_tokens, reasoning tokens of output_tokens.",
)
