"""Comparison of published output with the decisions of a database that is an older copy.

After such a copy takes over, the same input is decided again, in commits with other boundaries. So output is compared
by its subject, never by the number of its commit: a rated event by (account, source, id), an account event by its
account, type and data, a balance by its account, a rejected record by its place in the input. Never: Kafka, SQL.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from billing.commits.commit_record import OutputHistory
from billing.commits.outbox_frames import Frame
from schemas.json_text import dump_json
from schemas.topics import BALANCE_TOPIC, RATED_TOPIC, REJECTED_TOPIC

_ID = re.compile(r"^(?P<name>.+?)-(?:h(?P<history>[0-9]+)-)?(?P<commit>[0-9]+)-(?P<place>[0-9]+)$")


@dataclass(frozen=True, slots=True)
class Anchor:
    """The commit that wrote a published record, and the digest of the commit before; None in output of old versions.

    ``compared_through`` is set in records that a reconciliation published: the last commit that it compared.
    """

    history: int
    commit_no: int
    previous_digest: str | None
    compared_through: int | None = None


def anchor_of(topic: str, frame: Frame) -> Anchor | None:
    """Return the anchor that a published record carries; None if it does not say which commit wrote it."""
    if topic == REJECTED_TOPIC:
        headers = {name: content.decode() for name, content in frame.headers if content is not None and name in _OWN}
        if not headers.get("commit", "").isdigit():
            return None
        found = headers.get("comparedthrough")
        return Anchor(
            *(int(headers.get("history", "0")), int(headers["commit"]), headers.get("previousdigest")),
            None if found is None else int(found),
        )
    event = _event(frame)
    parts = _ID.match(str(event.get("id")))
    if parts is None:
        return None
    through = event.get("comparedthrough")
    return Anchor(
        *(int(parts["history"] or 0), int(parts["commit"]), event.get("previousdigest")),
        None if through is None else int(through),
    )


_OWN = ("commit", "history", "previousdigest", "comparedthrough", "topic", "partition", "offset")


def _event(frame: Frame) -> dict[str, Any]:
    value = json.loads(frame.value or b"{}")
    return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class PublishedOutput:
    """Output that consumers have read after the last commit that is in the database too."""

    rated: dict[tuple[str, str, str], str] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    balances: dict[str, str] = field(default_factory=dict)
    rejected: set[tuple[str, ...]] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)
    """Sentences about output that was published otherwise than the database has it now; for a person."""
    _decided: set[tuple[str, str, str]] = field(default_factory=set)
    _balances: dict[str, tuple[Frame, str]] = field(default_factory=dict)

    def add(self, topic: str, frame: Frame) -> None:
        """Add a record that consumers have."""
        if topic == REJECTED_TOPIC:
            self.rejected.add(_place(frame))
            return
        event = _event(frame)
        if topic == RATED_TOPIC:
            self.rated |= {key: dump_json(line).decode() for key, line in _lines(event)}
        elif topic == BALANCE_TOPIC:
            self.balances[event["subject"]] = dump_json(event["data"]).decode()
        else:
            self.events[_told(topic, event)] += 1

    def missing(self, topic: str, frames: Sequence[Frame], history: OutputHistory) -> Iterator[Frame]:
        """Yield what consumers lack of decided records of one commit, marked with the history that they begin.

        Balances are not yielded here but by :meth:`missing_balances`, because only the last one of an account counts.
        """
        for frame in frames:
            if topic == REJECTED_TOPIC:
                if _place(frame) not in self.rejected:
                    others = tuple(one for one in frame.headers if one[0] not in _mark(history))
                    mark = tuple((name, value.encode()) for name, value in _mark(history).items())
                    yield frame._replace(headers=(*others, *mark))
                continue
            event = _event(frame)
            if topic == RATED_TOPIC:
                left = [line for line in event["data"]["events"] if self._is_missing(event, line)]
                if left:
                    event["data"]["events"] = left
                    yield _marked(frame, event, history)
            elif topic == BALANCE_TOPIC:
                self._balances[event["subject"]] = (_marked(frame, event, history), dump_json(event["data"]).decode())
            elif self.events[_told(topic, event)] > 0:
                self.events[_told(topic, event)] -= 1
            else:
                yield _marked(frame, event, history)

    def missing_balances(self) -> list[Frame]:
        """Return the last balance of each account of which consumers have another."""
        return [frame for account, (frame, data) in self._balances.items() if self.balances.get(account) != data]

    def _is_missing(self, event: dict[str, Any], line: dict[str, Any]) -> bool:
        whole = _whole(event, line)
        key = (whole["account"], whole["source"], whole["id"])
        self._decided.add(key)
        published = self.rated.get(key)
        if published is not None and json.loads(published) != whole:
            self.differences.append(f"{_named(key)}: published as {published}, decided as {dump_json(whole).decode()}")
        return published is None

    def only_published(self) -> list[str]:
        """Return sentences about what consumers have and the database does not, once all its output was compared."""
        usage = [f"{_named(key)}: published, and not in the database" for key in self.rated if key not in self._decided]
        events = [f"{told}: published, and not in the database" for told, number in self.events.items() if number > 0]
        return usage + events


def _lines(event: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    for line in event["data"]["events"]:
        whole = _whole(event, line)
        yield (whole["account"], whole["source"], whole["id"]), whole


def _whole(event: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with the values that its record states once for all lines."""
    return {name: value for name, value in event["data"].items() if name != "events"} | line


def _place(frame: Frame) -> tuple[str, ...]:
    headers = {name: (content or b"").decode() for name, content in frame.headers if name in _OWN}
    return tuple(headers.get(name, "") for name in ("topic", "partition", "offset"))


def _told(topic: str, event: dict[str, Any]) -> str:
    return f"{topic} {event.get('type')} {event.get('subject')} {dump_json(event.get('data')).decode()}"


def _named(key: tuple[str, str, str]) -> str:
    return f"usage {key[1]} {key[2]} of {key[0]}"


def _mark(history: OutputHistory) -> dict[str, str]:
    return {"history": str(history.history), "comparedthrough": str(history.after_commit_no)}


def _marked(frame: Frame, event: dict[str, Any], history: OutputHistory) -> Frame:
    """Return a record whose id and history name the history, so that it is no repetition of an earlier record."""
    found = _ID.match(event["id"])
    if found is None:
        raise ValueError(f"an output event with the id {event['id']!r}")
    event["id"] = f"{found['name']}-h{history.history}-{found['commit']}-{found['place']}"
    return frame._replace(value=dump_json({**event, **_mark(history)}))
