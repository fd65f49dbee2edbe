"""The OpenAPI document: answers to generated requests match it, and every address requires its role."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_rig import Api, check_problem
from python_source import parse

from billing.store.api.keys import ROLES
from schemas.refusal_codes import Use, codes_of
from tokenbill.api.app import create_app
from tokenbill.api.context import ApiSettings
from tokenbill.api.http.auth import RIGHTS

ROOT = Path(__file__).resolve().parents[4]
DOCUMENT: dict[str, Any] = create_app(ApiSettings("", "postgresql://nowhere/x", 1)).openapi()
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
OPEN = {"/healthz", "/readyz"}
RIGHT_OF = {
    "usage": "ingest",
    "commands": "order",
    "accounts": "read",
    "catalogue": "read",
    "quotes": "read",
    "reservations": "reserve",
    "offline grants": "reserve",
    "converged charging": "reserve",
    "rating groups": "correct",
    "suspense": "read",
    "conflicts": "read",
    "conflict resolutions": "correct",
}
"""Right that the caller's role must have, by tag."""


def concrete(path: str) -> str:
    return re.sub(r"{version}", "1", re.sub(r"{(?!version)\w+}", "x", path))


def ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, concrete(path), json={}, headers={"idempotency-key": "matrix"})


def test_every_operation_is_in_the_matrix() -> None:
    tags = {tag for path, method in ((p, m) for m, p in OPERATIONS) for tag in DOCUMENT["paths"][path][method]["tags"]}
    assert tags - {"health"} <= RIGHT_OF.keys()
    assert len(OPERATIONS) >= 17


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_nothing_is_done_without_a_key_or_with_the_wrong_role(api: Api, method: str, path: str) -> None:
    if path in OPEN:
        assert ask(api.clients["nobody"], method, path).status_code == 200
        return
    check_problem(ask(api.clients["nobody"], method, path), 401, "key_required")
    [tag] = DOCUMENT["paths"][path][method]["tags"]
    for role in ROLES:
        answer = ask(api.clients[role], method, path)
        if RIGHT_OF[tag] in RIGHTS[role]:
            assert answer.status_code not in (401, 403, 500), answer.text
        else:
            check_problem(answer, 403, "role_not_enough")


@pytest.mark.parametrize("kind", ["balance.adjusted.v1", "usage.voided.v1", "usage.corrected.v1"])
def test_corrections_need_the_role_admin(api: Api, kind: str) -> None:
    body = {"type": kind, "data": {}}
    for role, status in (("operator", 403), ("admin", 422)):
        headers = {"idempotency-key": f"matrix-{kind}"}
        assert api.clients[role].post("/v1/accounts/x/commands", json=body, headers=headers).status_code == status


def test_the_served_document_is_this_one(admin: httpx.Client) -> None:
    assert admin.get("/openapi.json").json() == DOCUMENT
    assert DOCUMENT["security"] == [{"key": []}]
    assert all(DOCUMENT["paths"][path]["get"]["security"] == [] for path in OPEN)


def test_every_code_is_in_the_page_about_the_api() -> None:
    codes = (ROOT / "docs" / "reference" / "refusals.md").read_text(encoding="utf-8")
    rows = codes_of(Use.REQUEST) | codes_of(Use.COMMAND)
    missing = [code for code, row in rows.items() if f"| `{code}` | {row.status} |" not in codes]
    assert missing == []
    page = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    assert "reference/refusals.md" in page
    for method, path in OPERATIONS:
        assert f"`{method.upper()} {path}`" in page


def reasons_in(source: str) -> set[str]:
    """Return the reasons of the refusals that a module makes."""
    calls = (node for node in ast.walk(parse(source)) if isinstance(node, ast.Call))
    made = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Refusal")
    return {str(call.args[0].value) for call in made if call.args and isinstance(call.args[0], ast.Constant)}


def test_every_refusal_of_a_rule_has_a_code_with_a_status() -> None:
    """A new reason needs a row in schemas/refusal_codes.py, from which docs/reference/refusals.md is written."""
    holds = ROOT / "billing" / "reservations"
    of_commands, of_holds = set[str](), set[str]()
    for path in (ROOT / "billing").rglob("*.py"):
        (of_holds if holds in path.parents else of_commands).update(reasons_in(path.read_text()))
    assert len(of_commands) > 15 and len(of_holds) > 5
    assert of_commands - codes_of(Use.COMMAND).keys() == set()
    assert of_holds - codes_of(Use.REQUEST).keys() == set()


def test_requests_made_from_the_document_are_answered_as_it_says(api: Api) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}/openapi.json"),
            *("-H", f"Authorization: Bearer {api.tokens['admin']}", "-H", "Prefer: wait=0"),
            *("--phases", "fuzzing", "--max-examples", "10", "--seed", "20261122", "--no-color"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-8000:]
