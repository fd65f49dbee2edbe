"""Tables of DashScope (Alibaba Cloud Model Studio): native and compatible mode, the Responses API, speech and media."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, counted, from_source, not_billed

_NATIVE = "https://help.aliyun.com/zh/model-studio/qwen-api-via-dashscope"
_COMPATIBLE = "https://help.aliyun.com/zh/model-studio/qwen-api-via-openai-chat-completions"
_RESPONSES = "https://help.aliyun.com/zh/model-studio/qwen-api-via-openai-responses"
_CACHE = "https://help.aliyun.com/zh/model-studio/context-cache"
_EMBEDDINGS = "https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api"
_SPEECH = "https://help.aliyun.com/zh/model-studio/cosyvoice-websocket-api"
_RECOGNITION = "https://help.aliyun.com/zh/model-studio/qwen-asr-api-reference"
_IMAGES = "https://help.aliyun.com/zh/model-studio/text-to-image-v2-api-reference"
_VIDEOS = "https://help.aliyun.com/zh/model-studio/text-to-video-api-reference"

_FREE = "free of charge at present"


def _input(source: str, place: str) -> tuple[LeafRow, ...]:
    return from_source(
        source,
        {
            f"{place}.text_tokens": Role.TEXT_INPUT,
            f"{place}.audio_tokens": Role.AUDIO_INPUT,
            f"{place}.image_tokens": Role.IMAGE_INPUT,
            f"{place}.video_tokens": Role.VIDEO_INPUT,
        },
    )


def _cache(place: str) -> tuple[LeafRow, ...]:
    return from_source(
        _CACHE,
        {
            f"{place}.cached_tokens": Role.CACHED,
            f"{place}.cache_creation_input_tokens": Role.WRITTEN,
            f"{place}.cache_creation.cache_creation_input_tokens": Role.WRITTEN,
            f"{place}.cache_creation.ephemeral_5m_input_tokens": Role.WRITTEN_5M,
        },
    )


def _output(source: str, place: str) -> tuple[LeafRow, ...]:
    return from_source(
        source,
        {
            f"{place}.reasoning_tokens": Role.REASONING,
            f"{place}.text_tokens": Role.TEXT_OUTPUT,
            f"{place}.audio_tokens": Role.AUDIO_OUTPUT,
            f"{place}.image_tokens": Role.IMAGE_OUTPUT,
        },
    )


DASHSCOPE = Dialect(
    name="dashscope",
    version=1,
    title="DashScope: native and compatible mode, Responses API, embeddings",
    needs=("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "total_tokens"),
    rows=(
        *from_source(
            _NATIVE,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "total_tokens": Role.TOTAL,
                "audio_tokens": Role.AUDIO_INPUT,
                "image_tokens": Role.IMAGE_INPUT,
                "video_tokens": Role.VIDEO_INPUT,
                "cached_tokens": Role.CACHED,
            },
        ),
        *from_source(_COMPATIBLE, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT}),
        *_input(_NATIVE, "input_tokens_details"),
        *_input(_COMPATIBLE, "prompt_tokens_details"),
        *_cache("input_tokens_details"),
        *_cache("prompt_tokens_details"),
        *_output(_NATIVE, "output_tokens_details"),
        *_output(_COMPATIBLE, "completion_tokens_details"),
        *from_source(
            _RESPONSES,
            {
                "x_details[].input_tokens": Role.INPUT,
                "x_details[].output_tokens": Role.OUTPUT,
                "x_details[].total_tokens": Role.TOTAL,
            },
        ),
        *_input(_RESPONSES, "x_details[].prompt_tokens_details"),
        *_cache("x_details[].prompt_tokens_details"),
        *_output(_RESPONSES, "x_details[].output_tokens_details"),
        *counted(_RESPONSES, {"x_tools.web_search.count": "searches", "x_tools.pdf_page_parser.count": "pages"}),
        *counted(_COMPATIBLE, {"plugins.search.count": "searches"}),
        *counted(
            _RESPONSES,
            {"x_tools.image_search.count": "image_searches", "x_tools.file_search.count": "file_searches"},
        ),
        *not_billed(_RESPONSES, _FREE, "x_tools.web_extractor.count", meter="web_fetches"),
        *not_billed(_RESPONSES, _FREE, "x_tools.code_interpreter.count", meter="code_executions"),
        *counted(_RECOGNITION, {"seconds": "milliseconds"}, times=1000),
    ),
    total_is_input=True,
    forms=("dashscope.media",),
    notes="Tokens read from and written to the cache are part of the input, reasoning tokens of the output. The "
    "counts of sound, images and video at the top level are parts of input_tokens. total_tokens alone (embeddings) "
    "is input.",
)

DASHSCOPE_MEDIA = Dialect(
    name="dashscope.media",
    version=1,
    title="DashScope: speech, images and videos without tokens",
    needs=("characters", "seconds", "duration", "image_count", "video_duration"),
    when=("characters", "duration", "image_count", "video_duration"),
    rows=(
        *counted(_SPEECH, {"characters": "characters"}),
        *counted(_RECOGNITION, {"seconds": "milliseconds", "duration": "milliseconds"}, times=1000),
        *counted(_IMAGES, {"image_count": "images"}),
        *counted(_VIDEOS, {"video_duration": "milliseconds"}, times=1000),
        *not_billed(
            _RECOGNITION,
            "the text of a recording that is billed by its time",
            "input_tokens_details.text_tokens",
            "output_tokens_details.text_tokens",
        ),
        *not_billed(_IMAGES, "the size of the images", "width", "height"),
        *not_billed(_VIDEOS, "the size and number of the videos, billed by their time", "SR", "video_count"),
        *not_billed(_VIDEOS, "part of the duration, which is billed", "input_video_duration", "output_video_duration"),
    ),
    totals=(),
    notes="Times become milliseconds; images are counted, whatever their size.",
)
