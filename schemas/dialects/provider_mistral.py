"""Tables of Mistral: chat, conversations and _OCR, and audio."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, counted, from_source, not_billed
from schemas.dialects.provider_openai import CHAT_NEEDS

_CHAT = "https://docs.mistral.ai/api/endpoint/chat"
_CACHING = "https://docs.mistral.ai/inference/conversations/advanced/prompt-caching"
_CONNECTORS = "https://docs.mistral.ai/agents/connectors/websearch"
_TRANSCRIPTION = "https://docs.mistral.ai/api/endpoint/audio/transcriptions"
_OCR = "https://docs.mistral.ai/api/endpoint/ocr"

_CONNECTOR = "connector"
"""The group of the input that a connector gave to the model, which is no part of prompt_tokens."""

_SAME_AUDIO = "the same sound as prompt_audio_seconds, which is billed"

_COMMON: tuple[LeafRow, ...] = (
    *from_source(_CHAT, {"prompt_tokens": Role.INPUT, "completion_tokens": Role.OUTPUT}),
    *from_source(_CHAT, {"completion_tokens_details.reasoning_tokens": Role.REASONING}),
    *not_billed(_CHAT, "the number of requests of the object, always 1", "request_count"),
)

MISTRAL = Dialect(
    name="mistral",
    version=1,
    title="Mistral: chat, agents, embeddings and OCR",
    needs=(*CHAT_NEEDS, "pages_processed", "pages_processed_annotation"),
    rows=(
        *_COMMON,
        *from_source(_CHAT, {"total_tokens": Role.TOTAL}),
        *from_source(
            _CACHING,
            {
                "prompt_tokens_details.cached_tokens": Role.CACHED,
                "prompt_token_details.cached_tokens": Role.CACHED,
                "num_cached_tokens": Role.CACHED,
            },
        ),
        *from_source(_CONNECTORS, {"connector_tokens": Role.INPUT}, group=_CONNECTOR),
        *counted(
            _CONNECTORS,
            {"connectors.web_search": "searches", "connectors.web_search_premium": "searches"},
            add=True,
        ),
        *counted(
            _CONNECTORS,
            {
                "connectors.code_interpreter": "code_executions",
                "connectors.image_generation": "image_generations",
                "connectors.document_library": "document_searches",
            },
        ),
        *counted(_OCR, {"pages_processed": "pages", "pages_processed_annotation": "annotated_pages"}),
        *not_billed(_OCR, "the size of the document, billed by its pages", "doc_size_bytes"),
    ),
    totals=((Role.INPUT, f"{_CONNECTOR}/{Role.INPUT}", Role.OUTPUT),),
    forms=("mistral.audio",),
    notes="Cached tokens are part of prompt_tokens. connector_tokens is no part of them and becomes input. The object "
    "of _OCR is usage_info.",
)

MISTRAL_AUDIO = Dialect(
    name="mistral.audio",
    version=1,
    title="Mistral: transcription and chat with sound",
    needs=("prompt_audio_seconds",),
    rows=(
        *_COMMON,
        *counted(_TRANSCRIPTION, {"prompt_audio_seconds": "milliseconds"}, times=1000),
        *not_billed(
            _TRANSCRIPTION,
            _SAME_AUDIO,
            "prompt_tokens_details.audio_tokens",
            "prompt_token_details.audio_tokens",
            "prompt_tokens_details.cached_tokens",
            "prompt_token_details.cached_tokens",
            "num_cached_tokens",
        ),
        *not_billed(_TRANSCRIPTION, "includes the tokens of the sound, which are not always given", "total_tokens"),
    ),
    totals=(),
    notes="The sound is billed by its time, which becomes milliseconds, the text by prompt_tokens and "
    "completion_tokens. total_tokens has the tokens of the sound too and is not checked.",
)
