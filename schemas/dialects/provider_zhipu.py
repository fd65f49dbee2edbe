"""The table of Zhipu's GLM models (BigModel, Z.ai)."""

from schemas.dialects.dialect_table import Dialect, Role, from_source
from schemas.dialects.provider_openai import CHAT_INPUT, CHAT_NEEDS, CHAT_OUTPUT, TOKEN_NEEDS

_CHAT = "https://docs.bigmodel.cn/api-reference/%E6%A8%A1%E5%9E%8B-api/%E5%AF%B9%E8%AF%9D%E8%A1%A5%E5%85%A8"
_REALTIME = "https://docs.bigmodel.cn/cn/asyncapi/realtime"

ZHIPU = Dialect(
    name="zhipu",
    version=1,
    title="Zhipu GLM: chat, embeddings, rerank and realtime",
    needs=(*CHAT_NEEDS[:2], *TOKEN_NEEDS),
    rows=(
        *from_source(
            _CHAT, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
        ),
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *from_source(
            _REALTIME,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "input_token_details.cached_tokens": Role.CACHED,
                "input_token_details.text_tokens": Role.TEXT_INPUT,
                "input_token_details.audio_tokens": Role.AUDIO_INPUT,
                "output_token_details.text_tokens": Role.TEXT_OUTPUT,
                "output_token_details.audio_tokens": Role.AUDIO_OUTPUT,
            },
        ),
    ),
    notes="Cached tokens are part of prompt_tokens, reasoning tokens of completion_tokens. Searches are billed by the "
    "call and are in no usage object: give them in data.meters.",
)
