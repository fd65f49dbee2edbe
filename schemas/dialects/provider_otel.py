"""The table of OpenTelemetry's attributes ``gen_ai.usage.*``."""

from schemas.dialects.dialect_table import Dialect, Role, from_source, not_billed

GEN_AI = "https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/"
SENTRY = "https://develop.sentry.dev/sdk/telemetry/traces/modules/ai-agents/"
_BREAKDOWN = "https://github.com/open-telemetry/semantic-conventions-genai/pull/440"
_WRITES = "https://github.com/open-telemetry/opentelemetry-python-genai/pull/613"
_PYDANTIC_DETAILS = "https://github.com/pydantic/pydantic-ai/blob/main/pydantic_ai_slim/pydantic_ai/usage.py"

ROOT = "gen_ai.usage."
_RAW = "the count as the provider gave it; the attribute without details has it with the cache"
_REST = "the tokens of the other details"


def _attributes(roles: dict[str, Role]) -> dict[str, Role]:
    return {ROOT + name: role for name, role in roles.items()}


OTEL = Dialect(
    name="otel",
    version=2,
    title="OpenTelemetry attributes gen_ai.usage.*",
    needs=tuple(ROOT + name for name in ("input_tokens", "prompt_tokens", "output_tokens", "completion_tokens")),
    rows=(
        *from_source(
            GEN_AI,
            _attributes(
                {
                    "input_tokens": Role.INPUT,
                    "prompt_tokens": Role.INPUT,
                    "output_tokens": Role.OUTPUT,
                    "completion_tokens": Role.OUTPUT,
                    "cache_read.input_tokens": Role.CACHED,
                    "cache_creation.input_tokens": Role.WRITTEN,
                    "reasoning.output_tokens": Role.REASONING,
                }
            ),
        ),
        *from_source(
            SENTRY,
            _attributes(
                {
                    "total_tokens": Role.TOTAL,
                    "cache_read_input_tokens": Role.CACHED,
                    "input_tokens.cached": Role.CACHED,
                    "cache_creation_input_tokens": Role.WRITTEN,
                    "input_tokens.cache_write": Role.WRITTEN,
                    "output_tokens.reasoning": Role.REASONING,
                }
            ),
        ),
        *from_source(_WRITES, _attributes({"cache_write.input_tokens": Role.WRITTEN})),
        *from_source(
            _BREAKDOWN,
            _attributes(
                {
                    "text.input_tokens": Role.TEXT_INPUT,
                    "audio.input_tokens": Role.AUDIO_INPUT,
                    "image.input_tokens": Role.IMAGE_INPUT,
                    "text.cache_read.input_tokens": Role.CACHED_TEXT,
                    "audio.cache_read.input_tokens": Role.CACHED_AUDIO,
                    "image.cache_read.input_tokens": Role.CACHED_IMAGE,
                    "text.output_tokens": Role.TEXT_OUTPUT,
                    "audio.output_tokens": Role.AUDIO_OUTPUT,
                    "image.output_tokens": Role.IMAGE_OUTPUT,
                }
            ),
        ),
        *from_source(
            _PYDANTIC_DETAILS,
            _attributes(
                {
                    "cache_read_tokens": Role.CACHED,
                    "cache_write_tokens": Role.WRITTEN,
                    "details.cache_read_tokens": Role.CACHED,
                    "details.cached_tokens": Role.CACHED,
                    "details.cached_content_tokens": Role.CACHED,
                    "details.cache_write_tokens": Role.WRITTEN,
                    "details.reasoning_tokens": Role.REASONING,
                    "details.thinking_tokens": Role.REASONING,
                    "details.thoughts_tokens": Role.REASONING,
                    "details.input_audio_tokens": Role.AUDIO_INPUT,
                    "details.audio_prompt_tokens": Role.AUDIO_INPUT,
                    "details.image_prompt_tokens": Role.IMAGE_INPUT,
                    "details.video_prompt_tokens": Role.VIDEO_INPUT,
                    "details.cache_audio_read_tokens": Role.CACHED_AUDIO,
                    "details.audio_cache_tokens": Role.CACHED_AUDIO,
                    "details.image_cache_tokens": Role.CACHED_IMAGE,
                    "details.video_cache_tokens": Role.CACHED_VIDEO,
                    "details.output_audio_tokens": Role.AUDIO_OUTPUT,
                    "details.audio_candidates_tokens": Role.AUDIO_OUTPUT,
                    "details.image_candidates_tokens": Role.IMAGE_OUTPUT,
                }
            ),
        ),
        *from_source(
            _PYDANTIC_DETAILS,
            _attributes(
                {
                    "details.accepted_prediction_tokens": Role.PREDICTED,
                    "details.rejected_prediction_tokens": Role.PREDICTED,
                }
            ),
            add=True,
        ),
        *from_source(
            _PYDANTIC_DETAILS,
            _attributes(
                {
                    "details.cache_read_input_tokens": Role.CACHED,
                    "details.cache_creation_input_tokens": Role.WRITTEN,
                }
            ),
        ),
        *not_billed(_PYDANTIC_DETAILS, _RAW, ROOT + "details.input_tokens", ROOT + "details.output_tokens"),
        *not_billed(
            _PYDANTIC_DETAILS,
            _REST,
            ROOT + "details.text_prompt_tokens",
            ROOT + "details.text_cache_tokens",
            ROOT + "details.text_candidates_tokens",
        ),
        *not_billed(SENTRY, "money, not a count", ROOT + "cost"),
    ),
    flat=True,
    notes="Cached and reasoning tokens are parts of input and output. Older names and Sentry's names are read too.",
)
