"""The table of MiniMax: text models and speech."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_INPUT, CHAT_NEEDS, CHAT_OUTPUT, TOKEN_NEEDS

_CHAT = "https://platform.minimax.io/docs/api-reference/text-post"
_RESPONSES = "https://platform.minimax.io/docs/api-reference/text-chat-openai"
_SPEECH = "https://platform.minimax.io/docs/api-reference/speech-t2a-http"
_SPEECH_TASK = "https://platform.minimax.io/docs/api-reference/speech-t2a-async-create"

_SOUND = "a property of the sound, which is billed by the characters of its text"
_SOUND_NAMES = (
    "audio_length",
    "audio_sample_rate",
    "audio_size",
    "audio_bitrate",
    "bitrate",
    "audio_channel",
    "word_count",
    "invisible_character_ratio",
)

MINIMAX = Dialect(
    name="minimax",
    version=1,
    title="MiniMax: chat, Responses API and speech (T2A)",
    needs=(*CHAT_NEEDS[:2], *TOKEN_NEEDS, "usage_characters", "extra_info"),
    rows=(
        *from_source(
            _CHAT, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT, "total_tokens": Role.TOTAL}
        ),
        *CHAT_INPUT,
        *CHAT_OUTPUT,
        *from_source(
            _RESPONSES,
            {
                "input_tokens": Role.INPUT,
                "output_tokens": Role.OUTPUT,
                "input_tokens_details.cached_tokens": Role.CACHED,
                "output_tokens_details.reasoning_tokens": Role.REASONING,
            },
        ),
        *not_billed(_CHAT, "the text in characters, billed by its tokens", "total_characters"),
        *counted(_SPEECH, {"extra_info.usage_characters": "characters"}),
        *counted(_SPEECH_TASK, {"usage_characters": "characters"}),
        *not_billed(_SPEECH, _SOUND, *(f"extra_info.{name}" for name in _SOUND_NAMES), *_SOUND_NAMES),
    ),
    total_is_input=True,
    notes="Cached tokens are part of the input, reasoning tokens of the output. The usage of speech is the object that "
    "holds extra_info, or extra_info itself. The Anthropic endpoint of MiniMax is the dialect anthropic.",
)
