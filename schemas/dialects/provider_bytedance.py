"""Tables of Volcengine Ark (Doubao): text, embeddings and videos by the token, and images by the piece."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS, TOKEN_NEEDS

_CHAT = "https://www.volcengine.com/docs/82379/1494384"
_RESPONSES = "https://www.volcengine.com/docs/82379/1783703"
_EMBEDDINGS = "https://www.volcengine.com/docs/82379/1523520"
_IMAGES = "https://www.volcengine.com/docs/82379/1541523"
_VIDEOS = "https://www.volcengine.com/docs/82379/1521309"
_WEB_SEARCH = "https://www.volcengine.com/docs/82379/1756990"

_PROVISIONED = "part of the tokens, paid by a reserved throughput; the price row of that throughput says so"
_REPEATED = "the calls of tool_usage by source"

_TOOL_ROWS = (
    *counted(_WEB_SEARCH, {"tool_usage.web_search": "searches"}),
    *not_billed(_WEB_SEARCH, _REPEATED, "tool_usage_details.web_search.*"),
)

VOLCENGINE = Dialect(
    name="volcengine",
    version=1,
    title="Volcengine Ark: chat, Responses API, embeddings and videos",
    needs=(*CHAT_NEEDS[:2], *TOKEN_NEEDS),
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
        *from_source(
            _RESPONSES,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "input_tokens_details.cached_tokens": Role.CACHED,
                "output_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *from_source(
            _EMBEDDINGS,
            {
                "prompt_tokens_details.text_tokens": Role.TEXT_INPUT,
                "prompt_tokens_details.image_tokens": Role.IMAGE_INPUT,
            },
        ),
        *not_billed(
            _CHAT,
            _PROVISIONED,
            "prompt_tokens_details.provisioned_tokens",
            "completion_tokens_details.provisioned_tokens",
        ),
        *_TOOL_ROWS,
    ),
    forms=("volcengine.images",),
    notes="Cached tokens are part of the input, reasoning tokens of the output. The completion_tokens of a video are "
    "output.",
)

VOLCENGINE_IMAGES = Dialect(
    name="volcengine.images",
    version=1,
    title="Volcengine Ark: image generation",
    needs=("generated_images",),
    rows=(
        *counted(_IMAGES, {"generated_images": "images"}),
        *not_billed(_IMAGES, "the same images in another unit", "output_tokens", "total_tokens"),
        *_TOOL_ROWS,
    ),
    totals=(),
    notes="Images are billed by the piece.",
)
