"""The table of Perplexity's usage object."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS

SONAR = "https://docs.perplexity.ai/api-reference/chat-completions-post"
PRICING = "https://docs.perplexity.ai/getting-started/pricing"

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
            "Perplexity's own price of the request, not a count",
            "cost.input_tokens_cost",
            "cost.output_tokens_cost",
            "cost.reasoning_tokens_cost",
            "cost.citation_tokens_cost",
            "cost.search_queries_cost",
            "cost.request_cost",
            "cost.total_cost",
        ),
    ),
    output_includes_reasoning=False,
    notes="Reasoning tokens are in neither completion_tokens nor total_tokens.",
)
