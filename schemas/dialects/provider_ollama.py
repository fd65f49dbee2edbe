"""The table of Ollama's own API, whose usage is the last object of a response."""

from schemas.dialects.dialect_table import Dialect, Role, from_source, not_billed

_USAGE = "https://docs.ollama.com/api/usage"
_GENERATE = "https://docs.ollama.com/api/generate"

OLLAMA = Dialect(
    name="ollama",
    version=1,
    title="Ollama: chat, generate and embed",
    needs=("prompt_eval_count", "eval_count"),
    rows=(
        *from_source(
            _USAGE,
            {
                "prompt_eval_count": Role.INPUT,
                "prompt_eval_cached_count": Role.CACHED,
                "eval_count": Role.OUTPUT,
            },
        ),
        *not_billed(
            _USAGE,
            "a time in nanoseconds",
            "total_duration",
            "load_duration",
            "prompt_eval_duration",
            "eval_duration",
        ),
        *not_billed(_GENERATE, "the conversation as the numbers of its tokens", "context[]"),
    ),
    totals=(),
    notes="Thinking is part of eval_count. The OpenAI endpoint of Ollama is the dialect openai.chat.",
)
