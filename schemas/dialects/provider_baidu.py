"""The table of Baidu Qianfan (ERNIE)."""

from schemas.dialects.dialect_table import Dialect, Role, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS

_CHAT = "https://cloud.baidu.com/doc/qianfan-api/s/3m7of64lb"
_SEARCH = "https://cloud.baidu.com/doc/WENXINWORKSHOP/s/Wm95lyynv"

QIANFAN = Dialect(
    name="qianfan",
    version=1,
    title="Baidu Qianfan: chat, embeddings and rerank",
    needs=CHAT_NEEDS,
    rows=(
        *from_source(
            _CHAT,
            {
                "prompt_tokens": Role.INPUT,
                "completion_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "prompt_tokens_details.cached_tokens": Role.CACHED,
                "completion_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *not_billed(
            _SEARCH,
            "part of prompt_tokens: what a search gave to the model",
            "prompt_tokens_details.search_tokens",
        ),
    ),
    notes="Cached tokens are part of prompt_tokens, reasoning tokens of completion_tokens. The counts of plugins have "
    "no row: Qianfan does not say if the totals have them.",
)
