"""The table of Amazon Bedrock's Converse API."""

from schemas.dialects.dialect_table import Dialect, Role, from_source

_TOKEN_USAGE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html"
_CACHE_DETAIL = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CacheDetail.html"
_CACHING = "https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html"

BEDROCK = Dialect(
    name="bedrock",
    version=1,
    title="Amazon Bedrock Converse API",
    needs=("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
    rows=(
        *from_source(
            _TOKEN_USAGE,
            {
                "inputTokens": Role.INPUT,
                "outputTokens": Role.OUTPUT,
                "totalTokens": Role.TOTAL,
                "cacheReadInputTokens": Role.CACHED,
                "cacheWriteInputTokens": Role.WRITTEN,
            },
        ),
        *from_source(
            _CACHING,
            {"cacheReadInputTokenCount": Role.CACHED, "cacheWriteInputTokenCount": Role.WRITTEN},
        ),
        *from_source(
            _CACHE_DETAIL,
            {
                "cacheDetails[ttl=5m].inputTokens": Role.WRITTEN_5M,
                "cacheDetails[ttl=1h].inputTokens": Role.WRITTEN_1H,
            },
        ),
    ),
    input_includes=frozenset(),
    totals=((Role.INPUT, Role.CACHED, Role.WRITTEN, Role.OUTPUT),),
    notes="inputTokens excludes tokens read from and written to the cache; totalTokens includes them. The names with "
    "Count repeat the others.",
)
