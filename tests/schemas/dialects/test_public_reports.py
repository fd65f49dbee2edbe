"""Usage that gateways and dashboards are reported to have billed wrongly is billed rightly, at the reported prices.

Each case has the address of the public report, the usage object of the provider, its meters, the prices in USD for a
million tokens (for one search), and the right amount.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from schemas.dialects import disjoint_counts

GITHUB = "https://github.com/"


@dataclass(frozen=True)
class Report:
    address: str
    wrong: str
    dialect: str
    usage: dict[str, Any]
    counts: dict[str, int]
    prices: dict[str, str]
    amount: str


REPORTS = [
    Report(
        GITHUB + "BerriAI/litellm/issues/14849",
        "cached tokens were billed as input too",
        "gemini",
        {
            "promptTokenCount": 262960,
            "cachedContentTokenCount": 257955,
            "candidatesTokenCount": 1744,
            "totalTokenCount": 264704,
        },
        {"input": 5005, "cache_read": 257955, "output": 1744},
        {"input": "0.30", "cache_read": "0.075", "output": "2.50"},
        "0.025208125",
    ),
    Report(
        GITHUB + "ding113/claude-code-hub/pull/338",
        "cached tokens were billed as input too",
        "gemini",
        {
            "promptTokenCount": 696219,
            "cachedContentTokenCount": 696190,
            "candidatesTokenCount": 214,
            "totalTokenCount": 696433,
        },
        {"input": 29, "cache_read": 696190, "output": 214},
        {"input": "2", "cache_read": "0.20", "output": "12"},
        "0.141864",
    ),
    Report(
        GITHUB + "mozilla-ai/any-llm/issues/1290",
        "thoughts were left out",
        "gemini",
        {"promptTokenCount": 20, "candidatesTokenCount": 198, "thoughtsTokenCount": 405, "totalTokenCount": 623},
        {"input": 20, "output": 198, "reasoning": 405},
        {"input": "0.30", "output": "2.50", "reasoning": "2.50"},
        "0.0015135",
    ),
    Report(
        GITHUB + "router-for-me/CLIProxyAPI/issues/5733",
        "thoughts without an answer counted as no output",
        "gemini",
        {"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81},
        {"input": 21, "reasoning": 60},
        {"input": "0.30", "reasoning": "2.50"},
        "0.0001563",
    ),
    Report(
        GITHUB + "QuantumNous/new-api/issues/2935",
        "what a search gave back to the model was billed as output",
        "gemini",
        {
            "promptTokenCount": 151,
            "candidatesTokenCount": 1089,
            "totalTokenCount": 20689,
            "toolUsePromptTokenCount": 18329,
            "thoughtsTokenCount": 1120,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 151}],
            "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 18329}],
        },
        {"input": 18480, "output": 1089, "reasoning": 1120},
        {"input": "0.50", "output": "3", "reasoning": "3"},
        "0.015867",
    ),
    Report(
        GITHUB + "vercel/ai/pull/16400",
        "a page that a tool fetched was left out",
        "gemini",
        {
            "promptTokenCount": 26,
            "candidatesTokenCount": 103,
            "totalTokenCount": 12633,
            "toolUsePromptTokenCount": 12504,
        },
        {"input": 12530, "output": 103},
        {"input": "0.30", "output": "2.50"},
        "0.0040165",
    ),
    Report(
        GITHUB + "BerriAI/litellm/pull/38457",
        "the sound of a live session was billed as text",
        "gemini",
        {
            "promptTokenCount": 85,
            "responseTokenCount": 25,
            "thoughtsTokenCount": 38,
            "totalTokenCount": 148,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 38}, {"modality": "AUDIO", "tokenCount": 47}],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 25}],
        },
        {"input": 38, "audio_input": 47, "reasoning": 38, "audio_output": 25},
        {"input": "0.50", "audio_input": "3", "reasoning": "2", "audio_output": "12"},
        "0.000536",
    ),
    Report(
        GITHUB + "QuantumNous/new-api/issues/7229",
        "cached images were billed as images",
        "gemini",
        {
            "promptTokenCount": 24643,
            "cachedContentTokenCount": 24503,
            "candidatesTokenCount": 3110,
            "totalTokenCount": 27753,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 2643},
                {"modality": "IMAGE", "tokenCount": 22000},
            ],
            "cacheTokensDetails": [
                {"modality": "TEXT", "tokenCount": 2503},
                {"modality": "IMAGE", "tokenCount": 22000},
            ],
        },
        {"input": 140, "cache_read": 2503, "image_cache_read": 22000, "output": 3110},
        {"input": "1.50", "cache_read": "0.15", "image_cache_read": "0.15", "output": "9"},
        "0.03187545",
    ),
    Report(
        GITHUB + "Wei-Shaw/sub2api/issues/5771",
        "reasoning was left out",
        "xai",
        {
            "prompt_tokens": 10120,
            "completion_tokens": 1499,
            "total_tokens": 14428,
            "prompt_tokens_details": {"text_tokens": 10120, "cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2809},
            "cost_in_usd_ticks": 232856000,
        },
        {"input": 9992, "cache_read": 128, "output": 1499, "reasoning": 2809},
        {"input": "1.25", "cache_read": "0.20", "output": "2.50", "reasoning": "2.50"},
        "0.0232856",
    ),
    Report(
        GITHUB + "BerriAI/litellm/issues/14874",
        "cached tokens were billed as input too",
        "xai",
        {
            "prompt_tokens": 2739,
            "completion_tokens": 5,
            "total_tokens": 2744,
            "prompt_tokens_details": {"text_tokens": 2739, "cached_tokens": 2634},
        },
        {"input": 105, "cache_read": 2634, "output": 5},
        {"input": "0.20", "cache_read": "0.05", "output": "1.50"},
        "0.0001602",
    ),
    Report(
        GITHUB + "BerriAI/litellm/issues/9812",
        "tokens written to the cache were billed as input too",
        "anthropic",
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 12304,
            "cache_read_input_tokens": 0,
            "output_tokens": 550,
        },
        {"input": 3, "cache_write": 12304, "output": 550},
        {"input": "3", "cache_write": "3.75", "output": "15"},
        "0.054399",
    ),
    Report(
        GITHUB + "BerriAI/litellm/issues/6215",
        "cached tokens were billed in full",
        "openai.chat",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        {"input": 86, "cache_read": 1920, "output": 300},
        {"input": "2.50", "cache_read": "1.25", "output": "10"},
        "0.005615",
    ),
    Report(
        GITHUB + "langfuse/langfuse/issues/10592",
        "cached tokens were billed as input too",
        "openrouter",
        {
            "prompt_tokens": 17903,
            "completion_tokens": 92,
            "total_tokens": 17995,
            "cost": 0.0108,
            "prompt_tokens_details": {"cached_tokens": 17817, "audio_tokens": 0},
        },
        {"input": 86, "cache_read": 17817, "output": 92},
        {"input": "5", "cache_read": "0.50", "output": "25"},
        "0.0116385",
    ),
    Report(
        GITHUB + "langfuse/langfuse/issues/12306",
        "the cache was added to an input that has it",
        "otel",
        {
            "gen_ai.usage.input_tokens": 130213,
            "gen_ai.usage.cache_read_tokens": 128955,
            "gen_ai.usage.cache_write_tokens": 1253,
        },
        {"input": 5, "cache_read": 128955, "cache_write": 1253},
        {"input": "3", "cache_read": "0.30", "cache_write": "3.75"},
        "0.04340025",
    ),
    Report(
        GITHUB + "vercel/ai/issues/13902",
        "the cache was taken from an input that leaves it out",
        "bedrock",
        {
            "inputTokens": 1,
            "outputTokens": 200,
            "cacheReadInputTokens": 6512,
            "cacheWriteInputTokens": 791,
            "totalTokens": 7504,
        },
        {"input": 1, "cache_read": 6512, "cache_write": 791, "output": 200},
        {"input": "3", "cache_read": "0.30", "cache_write": "3.75", "output": "15"},
        "0.00792285",
    ),
    Report(
        GITHUB + "vercel/ai/issues/14382",
        "cached tokens were billed in full",
        "mistral",
        {
            "prompt_tokens": 1013,
            "completion_tokens": 30,
            "total_tokens": 1043,
            "num_cached_tokens": 1008,
            "prompt_tokens_details": {"cached_tokens": 1008},
        },
        {"input": 5, "cache_read": 1008, "output": 30},
        {"input": "0.50", "cache_read": "0.05", "output": "1.50"},
        "0.0000979",
    ),
    Report(
        GITHUB + "QuantumNous/new-api/issues/2493",
        "cached tokens at the top level were billed in full",
        "moonshot",
        {"prompt_tokens": 29567, "completion_tokens": 100, "total_tokens": 29667, "cached_tokens": 29440},
        {"input": 127, "cache_read": 29440, "output": 100},
        {"input": "1", "cache_read": "0.10", "output": "4"},
        "0.003471",
    ),
    Report(
        GITHUB + "bgeneto/open-webui-cost-tracker/issues/6",
        "reasoning and searches were left out",
        "perplexity",
        {
            "prompt_tokens": 108,
            "completion_tokens": 3256,
            "total_tokens": 3364,
            "citation_tokens": 7299,
            "num_search_queries": 74,
            "reasoning_tokens": 73248,
        },
        {"input": 108, "output": 3256, "reasoning": 73248, "searches": 74},
        {"input": "2", "output": "8", "reasoning": "3", "searches": "5000"},
        "0.616008",
    ),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.address.removeprefix(GITHUB))
def test_a_reported_usage_is_billed_rightly(report: Report) -> None:
    counts = dict(disjoint_counts(report.dialect, report.usage))
    assert counts == report.counts
    amount = sum(Decimal(report.prices[meter]) * count for meter, count in counts.items()) / 10**6
    assert amount == Decimal(report.amount)
