"""Tables of OpenAI's usage objects, and of the servers that write the same names: vLLM, SGLang."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, counted, from_source, not_billed

CHAT = "https://platform.openai.com/docs/api-reference/chat/object"
RESPONSES = "https://platform.openai.com/docs/api-reference/responses/object"
REALTIME = "https://platform.openai.com/docs/api-reference/realtime-server-events/response/done"
TRANSCRIPTION = "https://platform.openai.com/docs/api-reference/audio/json-object"
_VERBOSE = "https://platform.openai.com/docs/api-reference/audio/verbose-json-object"
SPEECH = "https://platform.openai.com/docs/api-reference/audio/speech-audio-done-event"
KIMI = "https://platform.moonshot.ai/docs/api/chat"
MODEL_STUDIO_RESPONSES = "https://help.aliyun.com/zh/model-studio/qwen-api-via-openai-responses"
LITELLM_TYPES = "https://github.com/BerriAI/litellm/blob/main/litellm/types/utils.py"
VLLM = "https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/engine/protocol.py"
SGLANG = "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/protocol.py"

CHAT_NEEDS = ("prompt_tokens", "completion_tokens", "total_tokens")
TOKEN_NEEDS = ("input_tokens", "output_tokens", "total_tokens")

CHAT_TOTALS = from_source(
    CHAT, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
)
TOKEN_TOTALS = from_source(
    RESPONSES, {"input_tokens": Role.INPUT, "output_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
)


def input_details(source: str, details: str, *, written: bool = True) -> tuple[LeafRow, ...]:
    """Return the rows of OpenAI's input details under a name, the cached part by modality included."""
    roles = {
        f"{details}.cached_tokens": Role.CACHED,
        f"{details}.text_tokens": Role.TEXT_INPUT,
        f"{details}.audio_tokens": Role.AUDIO_INPUT,
        f"{details}.image_tokens": Role.IMAGE_INPUT,
        f"{details}.video_tokens": Role.VIDEO_INPUT,
        f"{details}.cached_tokens_details.text_tokens": Role.CACHED_TEXT,
        f"{details}.cached_tokens_details.audio_tokens": Role.CACHED_AUDIO,
        f"{details}.cached_tokens_details.image_tokens": Role.CACHED_IMAGE,
        f"{details}.cached_tokens_details.video_tokens": Role.CACHED_VIDEO,
    }
    if written:
        roles |= {f"{details}.cache_write_tokens": Role.WRITTEN, f"{details}.cache_creation_tokens": Role.WRITTEN}
    flat = {
        f"{details}.cached_text_tokens": Role.CACHED_TEXT,
        f"{details}.cached_audio_tokens": Role.CACHED_AUDIO,
        f"{details}.cached_image_tokens": Role.CACHED_IMAGE,
        f"{details}.cached_video_tokens": Role.CACHED_VIDEO,
    }
    return (*from_source(source, roles), *from_source(LITELLM_TYPES, flat))


def output_details(source: str, details: str) -> tuple[LeafRow, ...]:
    """Return the rows of OpenAI's output details under a name."""
    roles = {
        f"{details}.reasoning_tokens": Role.REASONING,
        f"{details}.text_tokens": Role.TEXT_OUTPUT,
        f"{details}.audio_tokens": Role.AUDIO_OUTPUT,
        f"{details}.image_tokens": Role.IMAGE_OUTPUT,
        f"{details}.video_tokens": Role.VIDEO_OUTPUT,
    }
    predicted = {
        f"{details}.accepted_prediction_tokens": Role.PREDICTED,
        f"{details}.rejected_prediction_tokens": Role.PREDICTED,
    }
    return (*from_source(source, roles), *from_source(CHAT, predicted, add=True))


CHAT_INPUT = input_details(CHAT, "prompt_tokens_details")
CHAT_OUTPUT = output_details(CHAT, "completion_tokens_details")
TOP_REASONING = from_source(SGLANG, {"reasoning_tokens": Role.REASONING})

OPENAI_CHAT = Dialect(
    name="openai.chat",
    version=2,
    title="OpenAI Chat Completions API",
    needs=CHAT_NEEDS,
    rows=(
        *CHAT_TOTALS,
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *TOP_REASONING,
        *from_source(KIMI, {"cached_tokens": Role.CACHED}),
    ),
    notes="Cached tokens are part of prompt_tokens, reasoning tokens of completion_tokens. Servers that copy this API "
    "also give cached_tokens and reasoning_tokens at the top level.",
)

REALTIME_DETAILS = (
    *input_details(REALTIME, "input_token_details", written=False),
    *output_details(REALTIME, "output_token_details"),
)

OPENAI_RESPONSES = Dialect(
    name="openai.responses",
    version=2,
    title="OpenAI Responses API",
    needs=TOKEN_NEEDS,
    rows=(
        *TOKEN_TOTALS,
        *input_details(RESPONSES, "input_tokens_details"),
        *output_details(RESPONSES, "output_tokens_details"),
        *REALTIME_DETAILS,
        *counted(
            MODEL_STUDIO_RESPONSES,
            {"x_tools.web_search.count": "searches", "x_tools.pdf_page_parser.count": "pages"},
        ),
        *not_billed(
            MODEL_STUDIO_RESPONSES,
            "free for now; a book that bills it declares the meter web_fetches",
            "x_tools.web_extractor.count",
            meter="web_fetches",
        ),
        *not_billed(
            MODEL_STUDIO_RESPONSES,
            "free for now; a book that bills it declares the meter code_executions",
            "x_tools.code_interpreter.count",
            meter="code_executions",
        ),
    ),
    notes="As openai.chat, under the names input_tokens and output_tokens; the singular input_token_details of the "
    "Realtime API is read too.",
)

OPENAI_REALTIME = Dialect(
    name="openai.realtime",
    version=1,
    title="OpenAI Realtime API, the usage of response.done",
    needs=TOKEN_NEEDS,
    rows=(
        *from_source(REALTIME, {row.path: row.role for row in TOKEN_TOTALS}),
        *REALTIME_DETAILS,
    ),
    notes="Cached tokens are part of input_tokens, by modality in cached_tokens_details.",
)

OPENAI_AUDIO = Dialect(
    name="openai.audio",
    version=1,
    title="OpenAI audio: transcription, translation and speech",
    needs=(*TOKEN_NEEDS, "seconds", "duration"),
    rows=(
        *from_source(TRANSCRIPTION, {row.path: row.role for row in TOKEN_TOTALS}),
        *from_source(
            TRANSCRIPTION,
            {
                "input_token_details.text_tokens": Role.TEXT_INPUT,
                "input_token_details.audio_tokens": Role.AUDIO_INPUT,
            },
        ),
        *from_source(
            SPEECH,
            {
                "output_token_details.text_tokens": Role.TEXT_OUTPUT,
                "output_token_details.audio_tokens": Role.AUDIO_OUTPUT,
            },
        ),
        *counted(TRANSCRIPTION, {"seconds": "milliseconds"}, times=1000),
        *counted(_VERBOSE, {"duration": "milliseconds"}, times=1000),
    ),
    notes="Models billed by duration give seconds, which become milliseconds; the others give tokens. The duration of "
    "a verbose answer is read where no usage is given.",
)

VLLM_CHAT = Dialect(
    name="vllm",
    version=2,
    title="vLLM server",
    needs=CHAT_NEEDS,
    rows=(
        *CHAT_TOTALS,
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *TOP_REASONING,
        *from_source(
            VLLM,
            {
                "prompt_tokens_details.created_cache_tokens": Role.WRITTEN,
                "prompt_tokens_details.multimodal_tokens.audio": Role.AUDIO_INPUT,
                "prompt_tokens_details.multimodal_tokens.image": Role.IMAGE_INPUT,
                "prompt_tokens_details.multimodal_tokens.video": Role.VIDEO_INPUT,
            },
        ),
    ),
    notes="As openai.chat; details come only with --enable-prompt-tokens-details.",
)

SGLANG_CHAT = Dialect(
    name="sglang",
    version=2,
    title="SGLang server",
    needs=CHAT_NEEDS,
    rows=(*CHAT_TOTALS, *CHAT_INPUT, *CHAT_OUTPUT, *TOP_REASONING),
    notes="As openai.chat; reasoning_tokens at the top level, details only with --enable-cache-report.",
)
