"""The documents on disk equal those generated from the models, and version 1 stays compatible."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.outputs import OUTPUTS
from schemas.schema_documents import asyncapi, documents, event_schemas, main

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).parent / "golden" / "v1" / "schemas"
Schema = dict[str, Any]


def test_documents_on_disk_are_generated_and_none_is_left_over(tmp_path: Path) -> None:
    main([str(tmp_path)])
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "schemas").iterdir()}
    assert on_disk == documents(), "run: .venv/bin/python -m schemas.schema_documents"
    assert {path.name for path in tmp_path.iterdir()} == set(on_disk)


def test_asyncapi_names_every_topic_and_refers_only_to_what_exists() -> None:
    document = asyncapi()
    assert set(document["channels"]) == {
        "usage.events",
        "account.commands",
        "usage.rated",
        "package.balance",
        "account.events",
        "usage.rejected",
    }
    messages = document["components"]["messages"]
    used = {name for channel in document["channels"].values() for name in channel["messages"]}
    assert used == set(messages)
    files = set(documents())
    for message in messages.values():
        schema = message["payload"].get("schema", message.get("headers"))
        assert schema["$ref"].removeprefix("./") in files


def resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def types_of(schema: Schema) -> set[str]:
    if "anyOf" in schema:
        return set().union(*(types_of(choice) for choice in schema["anyOf"]))
    found = schema.get("type", [])
    return {found} if isinstance(found, str) else set(found)


def breaks(
    old: Schema, new: Schema, *, output: bool, path: str = "", roots: tuple[Schema, Schema] | None = None
) -> list[str]:
    """Return the changes that break a reader (of an output) or a writer (of an input) of the old schema."""
    old_root, new_root = roots or (old, new)
    old, new = resolve(old, old_root), resolve(new, new_root)
    found: list[str] = []
    lost = types_of(new) - types_of(old) if output else types_of(old) - types_of(new)
    if lost or bool(types_of(old)) != bool(types_of(new)):
        found.append(f"{path}: type {sorted(types_of(old))} became {sorted(types_of(new))}")
    for word in ("enum", "const", "pattern", "maxLength", "minLength", "minimum", "maximum"):
        grown = word == "enum" and not output and {*old.get(word, ())} <= {*new.get(word, ())}
        if old.get(word) != new.get(word) and not grown:
            found.append(f"{path}: {word} {old.get(word)} became {new.get(word)}")
    old_required, new_required = set(old.get("required", [])), set(new.get("required", []))
    changed = old_required - new_required if output else new_required - old_required
    found += [f"{path}.{name}: {'no longer' if output else 'now'} required" for name in sorted(changed)]
    for name, child in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{path}.{name}: removed")
            continue
        found += breaks(
            child, new["properties"][name], output=output, path=f"{path}.{name}", roots=(old_root, new_root)
        )
    if "items" in old:
        found += breaks(old["items"], new.get("items", {}), output=output, path=f"{path}[]", roots=(old_root, new_root))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in STORED.iterdir()))
def test_version_1_is_not_broken(name: str) -> None:
    stored = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    assert breaks(stored, event_schemas()[name], output=name in OUTPUTS) == []


def test_every_event_type_has_a_stored_schema() -> None:
    assert {path.stem for path in STORED.iterdir()} == set(event_schemas())


def _remove_field(schema: Schema) -> None:
    del schema["properties"]["data"]["properties"]["model"]


def _change_type(schema: Schema) -> None:
    schema["properties"]["data"]["properties"]["model"]["type"] = "integer"


def _require_more(schema: Schema) -> None:
    schema["properties"]["data"]["required"].append("site")


def _forbid_null(schema: Schema) -> None:
    schema["properties"]["data"]["properties"]["site"]["type"] = "string"


@pytest.mark.parametrize("change", [_remove_field, _change_type, _require_more, _forbid_null])
def test_canary_a_breaking_input_is_noticed(change: Callable[[Schema], None]) -> None:
    old = event_schemas()["token.usage.v1"]
    new = copy.deepcopy(old)
    change(new)
    assert breaks(old, new, output=False)


def _remove_nested(schema: Schema) -> None:
    del schema["$defs"]["RatedEvent"]["properties"]["charged"]


def _stop_promising(schema: Schema) -> None:
    schema["$defs"]["RatedEvent"]["required"].remove("net")


def _change_nested_type(schema: Schema) -> None:
    schema["$defs"]["RatedMeter"]["properties"]["quantity"]["type"] = "string"


@pytest.mark.parametrize("change", [_remove_nested, _stop_promising, _change_nested_type])
def test_canary_a_breaking_output_is_noticed(change: Callable[[Schema], None]) -> None:
    old = event_schemas()["usage.rated.v1"]
    new = copy.deepcopy(old)
    change(new)
    assert breaks(old, new, output=True)


def test_canary_an_added_field_is_no_break() -> None:
    old = event_schemas()["usage.rated.v1"]
    new = copy.deepcopy(old)
    new["$defs"]["RatedEvent"]["properties"]["green"] = {"type": "boolean"}
    assert breaks(old, new, output=True) == []
