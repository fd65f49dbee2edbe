"""The table of iFlytek Spark: the WebSocket and the _HTTP API."""

from schemas.dialects.dialect_table import Dialect, Role, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS

_WEBSOCKET = "https://www.xfyun.cn/doc/spark/Web.html"
_HTTP = "https://www.xfyun.cn/doc/spark/HTTP%E8%B0%83%E7%94%A8%E6%96%87%E6%A1%A3.html"

_RESERVED = "the last question alone, a part of the prompt; the documentation calls the field reserved"

SPARK = Dialect(
    name="spark",
    version=1,
    title="iFlytek Spark: WebSocket and HTTP",
    needs=("text", *CHAT_NEEDS),
    rows=(
        *from_source(
            _WEBSOCKET,
            {
                "text.prompt_tokens": Role.INPUT,
                "text.completion_tokens": Role.OUTPUT,
                "text.total_tokens": Role.TOTAL,
            },
        ),
        *from_source(
            _HTTP,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "prompt_tokens_details.cached_tokens": Role.CACHED,
                "completion_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *not_billed(_WEBSOCKET, _RESERVED, "text.question_tokens", "question_tokens"),
    ),
    notes="The counts are inside text (WebSocket) or beside each other (_HTTP).",
)
