"""Golden examples of version 1, kept permanently: valid under current schemas, and read with equal results."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas.commands import COMMANDS, Command, parse_command
from schemas.outputs import OUTPUTS, UsageRejectedHeaders
from schemas.schema_documents import documents, event_schemas
from schemas.usage import UsageEvent, parse_usage

FOLDER = Path(__file__).parent / "golden" / "v1"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
EVENTS = sorted(path.stem for path in FOLDER.glob("*-*.json"))
OUTPUT_EVENTS = [name for name in EVENTS if name.startswith("output-") and not name.endswith(".headers")]


def golden(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def parse(name: str) -> object:
    body = golden(name)
    if name == "usage-binary":
        return parse_usage(json.dumps(body["value"]).encode(), [(k, v.encode()) for k, v in body["headers"].items()])
    raw = (FOLDER / f"{name}.json").read_bytes()
    return parse_usage(raw) if name.startswith("usage-") else parse_command(raw)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_golden_input_still_means_what_it_meant(name: str) -> None:
    result = parse(name)
    assert isinstance(result, UsageEvent | Command), result
    fields: dict[str, Any] = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Command):
        data = result.data.model_dump()
        # A field newer than the example has its default.
        for name_of_later in data.keys() - EXPECTED[name]["data"].keys():
            assert data.pop(name_of_later) == type(result.data).model_fields[name_of_later].default
        fields["data"] = data
    else:
        body = golden(name)
        # Fields newer than the examples.
        assert fields.pop("dialect") == (body.get("data") or body["value"]).get("usage_dialect")
        assert fields.pop("unknown") == ()
        assert fields.pop("attributes") == ()
    assert json.loads(json.dumps(fields)) == EXPECTED[name]


@pytest.mark.parametrize(
    "name", [name for name in EVENTS if name not in ("usage-binary", "output-usage.rejected.headers")]
)
def test_a_golden_event_validates_against_its_schema(name: str) -> None:
    body = golden(name)
    schema = event_schemas()[body["type"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(body, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", OUTPUT_EVENTS)
def test_a_golden_output_is_read_by_its_model_without_loss(name: str) -> None:
    body = golden(name)
    model = OUTPUTS[body["type"]]
    assert model.model_validate(body["data"]).model_dump(exclude_unset=True) == body["data"]


def test_golden_rejection_headers_are_read_by_their_model() -> None:
    body = golden("output-usage.rejected.headers")
    jsonschema.validate(body, json.loads(documents()["usage.rejected.headers.json"]))
    assert UsageRejectedHeaders.model_validate(body).model_dump(exclude_none=True) == body


def test_every_event_type_and_every_dialect_has_a_golden_example() -> None:
    types = {golden(name).get("type") for name in EVENTS}
    assert types - {None} == set(event_schemas())
    assert {name for name in EXPECTED if name.startswith("command-")} == {f"command-{name}" for name in COMMANDS}
    assert len([name for name in EVENTS if name.startswith("usage-dialect-")]) == 8


@pytest.mark.parametrize(
    "change",
    [{"model": 5}, {"model": ""}, {"usage": {"input": -1}}, {"usage": {"x": 1.5}}, {"outcome": "done"}],
)
def test_the_usage_schema_refuses_what_the_decoder_refuses(change: dict[str, Any]) -> None:
    body = golden("usage-structured")
    body["data"] |= change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, event_schemas()["token.usage.v1"], jsonschema.Draft202012Validator)


@pytest.mark.parametrize("amount", ["-0", "1.0", "01", "1e3", "+1", ".5", "0.0"])
def test_an_output_amount_has_one_form(amount: str) -> None:
    body = golden("output-package.balance.v1")
    body["data"]["wallet"] = amount
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, event_schemas()["package.balance.v1"], jsonschema.Draft202012Validator)
