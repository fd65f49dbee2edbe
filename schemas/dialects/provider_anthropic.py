"""The table of Anthropic's usage object, with the iterations of server-side compaction and the server's tools."""

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, counted, from_source, not_billed

MESSAGES_API = "https://docs.anthropic.com/en/api/messages"
CACHING = "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching"
COMPACTION = "https://platform.claude.com/docs/en/build-with-claude/compaction"
WEB_SEARCH = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool"
WEB_FETCH = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-fetch-tool"
_TOOL_SEARCH = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/tool-search-tool"
CODE = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/code-execution-tool"

TOTALS = {"input_tokens": Role.INPUT, "output_tokens": Role.OUTPUT}
CACHE_NAMES = {
    "cache_read_input_tokens": Role.CACHED,
    "cache_creation_input_tokens": Role.WRITTEN,
    "cache_creation.ephemeral_5m_input_tokens": Role.WRITTEN_5M,
    "cache_creation.ephemeral_1h_input_tokens": Role.WRITTEN_1H,
}
THINKING = {
    "output_tokens_details.thinking_tokens": Role.REASONING,
    "output_tokens_details.reasoning_tokens": Role.REASONING,
}


def _within(place: str, roles: dict[str, Role]) -> dict[str, Role]:
    return {f"{place}.{path}": role for path, role in roles.items()}


def _iterations(kind: str, why: str = "") -> tuple[LeafRow, ...]:
    """Return the rows of one kind of iteration: a group of its own, or not billed for a reason."""
    roles = _within(f"iterations[type={kind}]", {**TOTALS, **CACHE_NAMES, **THINKING})
    if why:
        return not_billed(COMPACTION, why, *roles)
    return from_source(COMPACTION, roles, group=kind)


OTHER_DETAILS = {
    "output_tokens_details.text_tokens": Role.TEXT_OUTPUT,
    "output_tokens_details.audio_tokens": Role.AUDIO_OUTPUT,
    "output_tokens_details.image_tokens": Role.IMAGE_OUTPUT,
    "output_tokens_details.video_tokens": Role.VIDEO_OUTPUT,
}

ANTHROPIC = Dialect(
    name="anthropic",
    version=2,
    title="Anthropic Messages API",
    needs=("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    rows=(
        *from_source(MESSAGES_API, {**TOTALS, **THINKING, **OTHER_DETAILS, "total_tokens": Role.TOTAL}),
        *from_source(CACHING, CACHE_NAMES),
        *_iterations("compaction"),
        *_iterations("message", "the counts at the top are the sum of these iterations"),
        *counted(WEB_SEARCH, {"server_tool_use.web_search_requests": "searches"}),
        *not_billed(
            WEB_FETCH,
            "a fetch costs its tokens only",
            "server_tool_use.web_fetch_requests",
            meter="web_fetches",
        ),
        *not_billed(_TOOL_SEARCH, "a search of tools costs its tokens only", "server_tool_use.tool_search_requests"),
        *not_billed(
            CODE,
            "billed by the time of the container, which the object does not have",
            "server_tool_use.code_execution_requests",
            meter="code_executions",
        ),
    ),
    input_includes=frozenset(),
    totals=((Role.INPUT, Role.CACHED, Role.WRITTEN, Role.OUTPUT),),
    notes="input_tokens excludes tokens read from and written to the cache; output_tokens includes thinking. An "
    "iteration of type compaction is billed and is not in the counts at the top.",
)
