"""The table of OpenTelemetry's attributes ``gen_ai.usage.*``."""

from schemas.dialects.dialect_table import Dialect, Role, from_source

GEN_AI = "https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/"
SENTRY = "https://develop.sentry.dev/sdk/telemetry/traces/modules/ai-agents/"

ROOT = "gen_ai.usage."


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
    ),
    flat=True,
    notes="Cached and reasoning tokens are parts of input and output. Older names and Sentry's names are read too.",
)
