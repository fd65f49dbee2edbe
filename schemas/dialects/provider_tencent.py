"""The table of Tencent Hunyuan: the API of Tencent Cloud and the OpenAI endpoint."""

from schemas.dialects.dialect_table import Dialect, Role, from_source
from schemas.dialects.provider_openai import CHAT_INPUT, CHAT_NEEDS, CHAT_OUTPUT

_NATIVE = "https://cloud.tencent.com/document/api/1729/101838"
_COMPATIBLE = "https://cloud.tencent.com/document/product/1729/111007"

HUNYUAN = Dialect(
    name="hunyuan",
    version=1,
    title="Tencent Hunyuan: native and compatible mode, embeddings",
    needs=("PromptTokens", "CompletionTokens", "TotalTokens", *CHAT_NEEDS),
    rows=(
        *from_source(_NATIVE, {"PromptTokens": Role.INPUT, "CompletionTokens": Role.OUTPUT, "TotalTokens": Role.TOTAL}),
        *from_source(
            _COMPATIBLE, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
        ),
        *CHAT_INPUT,
        *CHAT_OUTPUT,
    ),
    total_is_input=True,
    notes="Cached tokens are part of the input, reasoning tokens of the output.",
)
