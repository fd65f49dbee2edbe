"""The table of Cohere, which bills ``billed_units`` and reports the tokens of the model beside them."""

from schemas.dialects.dialect_table import Dialect, Role, counted, from_source, not_billed

_CHAT = "https://docs.cohere.com/reference/chat"
_BILLED = "https://docs.cohere.com/docs/how-does-cohere-pricing-work"
_EMBED = "https://docs.cohere.com/reference/embed"
_RERANK = "https://docs.cohere.com/reference/rerank"

_NOT_CHARGED = "tokens that the model saw; Cohere charges billed_units"

COHERE = Dialect(
    name="cohere",
    version=1,
    title="Cohere: chat, embed and rerank",
    needs=("billed_units",),
    rows=(
        *from_source(_BILLED, {"billed_units.input_tokens": Role.INPUT, "billed_units.output_tokens": Role.OUTPUT}),
        *counted(_EMBED, {"billed_units.image_tokens": "image_input", "billed_units.images": "images"}),
        *counted(_RERANK, {"billed_units.search_units": "searches"}),
        *counted(_CHAT, {"billed_units.classifications": "classifications"}),
        *not_billed(_BILLED, _NOT_CHARGED, "tokens.input_tokens", "tokens.output_tokens"),
        *not_billed(_CHAT, "part of the tokens that the model saw; it has no price of its own", "cached_tokens"),
    ),
    totals=(),
    notes="billed_units are charged, tokens are not: they include what Cohere adds to a prompt. A usage without "
    "billed_units is refused. The object is usage (v2) or meta (v1).",
)
