"""Table of all refusal codes of records, commands and requests.

The reasons of ``usage.rejected`` and ``account.events``, the problem documents of the HTTP API and the page
docs/reference/refusals.md are made from it. A code, once published, keeps its meaning, status and title. Never: the
decision to refuse, which belongs to a rule.
"""

from dataclasses import dataclass
from enum import Flag, auto


class Use(Flag):
    """Inputs that can be refused with a code."""

    RECORD = auto()
    """A record of ``usage.events``: the code is its reason on ``usage.rejected`` and in suspense."""
    COMMAND = auto()
    """An account command: the code is its reason on ``account.events`` and in the answer of the HTTP API."""
    REQUEST = auto()
    """A request to the HTTP API, reservations included."""


_RECORD, _COMMAND, _REQUEST = Use


@dataclass(frozen=True, slots=True)
class Code:
    """One refusal code: HTTP status, title (constant text of the problem document), example and uses.

    A code with another status for a command than for a request has two rows.
    """

    code: str
    status: int
    title: str
    example: str
    uses: Use


# fmt: off
TABLE: tuple[Code, ...] = (
    Code("invalid_json", 400, "The event is not JSON, or not as strict as an event must be",
         "`[{...},]` as a batch", _RECORD | _COMMAND | _REQUEST),
    Code("invalid_event", 422, "A field of the event is missing or wrong", "`data.model` missing",
         _RECORD | _COMMAND | _REQUEST),
    Code("usage_mismatch", 422, "The counts contradict each other",
         "a negative count; parts that exceed their total", _RECORD | _REQUEST),
    Code("usage_missing", 422, "A completed request counts nothing",
         "a completed request whose `usage` is `{}` or all zeros", _RECORD | _REQUEST),
    Code("unknown_meter", 422, "A meter is counted that nobody knows",
         "a meter that no price book declares", _RECORD | _REQUEST),
    Code("no_price_book", 422, "No version of the price book is in force at that time",
         "a quote for a time before the book's first version", _RECORD | _COMMAND | _REQUEST),
    Code("no_price", 422, "No row of the price book prices this",
         "a quote for a model that the book does not price", _RECORD | _COMMAND | _REQUEST),
    Code("unknown_account", 404, "The account was never opened",
         "a top-up of an account that was never opened", _RECORD | _COMMAND | _REQUEST),
    Code("account_closed", 409, "The account is closed",
         "a purchase for a closed account", _RECORD | _COMMAND | _REQUEST),
    Code("time_in_future", 422, "The time is too far ahead",
         "a `time` more than ten minutes ahead of the log", _RECORD | _REQUEST),
    Code("time_too_old", 422, "The time is too far back",
         "an event without a number whose `time` is more than 35 days back", _RECORD | _REQUEST),
    Code("sequence_reused", 422, "The number belongs to another event",
         "a `sequence` that an event with another id has", _RECORD),
    Code("overflow", 422, "A number is larger than what can be held",
         "a count above 2^63-1", _RECORD | _COMMAND | _REQUEST),
    Code("invalid_request", 400, "The request cannot be read",
         "`limit=0`; an unknown field `\"gfit\"`; a body that is no JSON object", _REQUEST),
    Code("invalid_time", 422, "The time cannot be asked for", "`at` in the future", _REQUEST),
    Code("history_not_kept", 409, "The log no longer reaches back far enough",
         "a balance at a past time, or a void, after Kafka deleted the usage that led to it", _COMMAND | _REQUEST),
    Code("history_too_long", 409, "Too much would have to be decided again",
         "a balance at a past time, or a void, that more than 5,000,000 records of the partition led to",
         _COMMAND | _REQUEST),
    Code("invalid_cursor", 422, "The cursor was not made by this list",
         "a cursor that this list did not return", _REQUEST),
    Code("key_required", 401, "A key is required", "no `Authorization` header", _REQUEST),
    Code("key_unknown", 401, "The key is unknown, expired or revoked",
         "a key that is expired or revoked, or has another secret", _REQUEST),
    Code("role_not_enough", 403, "The role of the key does not allow this",
         "a top-up with a key of the role `read`", _REQUEST),
    Code("other_account", 403, "The key is for another account", "account `b` with a key for account `a`", _REQUEST),
    Code("source_not_allowed", 403, "The key may not send usage of this source",
         "usage with a source that begins with none of the key's sources, or with `urn:tokenbill:`", _REQUEST),
    Code("not_found", 404, "There is nothing at this address", "`/v1/nothing`", _REQUEST),
    Code("method_not_allowed", 405, "The address does not know this method",
         "`DELETE /v1/accounts`; `allow` names the methods", _REQUEST),
    Code("idempotency_key_required", 400, "A command needs an idempotency key",
         "a command without the header", _REQUEST),
    Code("unknown_plan", 404, "There is no such plan",
         "a purchase of a plan that is not in the catalogue", _COMMAND | _REQUEST),
    Code("unknown_price_book", 404, "There is no such price book",
         "a quote by a book that is not in the catalogue", _REQUEST),
    Code("unknown_command", 404, "No command was ordered under this idempotency key",
         "`/v1/commands/x` with a key that sent no command under `x`", _REQUEST),
    Code("unknown_suspense", 404, "No event was rejected at this place",
         "`/v1/suspense/usage.events/0/5` where no event was rejected", _REQUEST),
    Code("unknown_conflict", 404, "No usage was sent again with other content at this place",
         "`/v1/conflicts/usage.events/0/5` where no conflict is", _REQUEST),
    Code("conflict_resolved", 409, "The conflict was resolved before",
         "`keep` for a conflict that was corrected", _REQUEST),
    Code("nothing_to_correct", 409, "A correction would change nothing",
         "`correct` for a conflict that differs only in `time`", _REQUEST),
    Code("too_large", 413, "The body is too large", "a body above 4 MiB; one event above 512 KiB", _REQUEST),
    Code("head_too_large", 431, "The head of the request is too large",
         "headers of more than 32 KiB together, or more than 100 of them", _REQUEST),
    Code("request_timeout", 408, "The request was not complete in time",
         "a head that is not complete after ten seconds; a body that is not complete after thirty more", _REQUEST),
    Code("too_many_connections", 503, "Too many connections are open",
         "the 501st connection from one address at once", _REQUEST),
    Code("unsupported_media_type", 415, "The body has a content type that is not read here",
         "a form instead of JSON", _REQUEST),
    Code("too_many_events", 422, "The batch has too many events", "a batch of 1,001 events", _REQUEST),
    Code("nothing_taken", 422, "No event of the batch was taken",
         "a batch in which every event has a problem", _REQUEST),
    Code("insufficient_balance", 402, "The wallet holds too little for the reservation",
         "a reservation above the free part of the wallet, which the detail states", _REQUEST),
    Code("insufficient_balance", 409, "The balance is too small",
         "an adjustment that takes more than the balance", _COMMAND),
    Code("package_exhausted", 402, "The packages hold too little for the reservation",
         "a reservation above the free part of packages whose overage rule is `block`", _REQUEST),
    Code("nothing_asked", 422, "The request asks for nothing", "usage without a count; an extension by 0", _REQUEST),
    Code("invalid_charging_data", 422, "The charging data contradict themselves",
         "an `invocationSequenceNumber` of 5.0", _REQUEST),
    Code("unknown_reservation", 404, "There is no such reservation",
         "an id that does not exist, or whose reservation ended more than a day ago", _REQUEST),
    Code("reservation_expired", 410, "The reservation expired",
         "extending or settling after the end; settled usage is recorded (`recorded`)", _REQUEST),
    Code("reservation_closed", 409, "The reservation was closed or released",
         "extending or settling after usage closed the hold, or after a release", _REQUEST),
    Code("too_many_steps", 409, "The hold has as many steps as it can remember",
         "the 1,001st extension of one reservation under an idempotency key of its own", _REQUEST),
    Code("too_many_groups", 422, "The request asks for the quota of too many rating groups",
         "the 257th group of one charging request; its used units are recorded", _REQUEST),
    Code("answer_not_kept", 409, "The request was carried out, and its answer is no longer kept",
         "an invocation of a charging session that is repeated after 32 others", _REQUEST),
    Code("unknown_session", 404, "There is no such charging session",
         "a ChargingDataRef that does not exist, or whose session ended more than a day ago", _REQUEST),
    Code("invalid_token", 422, "The allowance was not signed here for this grant",
         "an allowance that this service did not sign for this grant", _REQUEST),
    Code("invalid_data", 422, "A value cannot be held exactly", "`1.5` for a count; an unpaired surrogate", _REQUEST),
    Code("invalid_command", 422, "A field of the command is missing or wrong",
         "`amount: \"1e3\"`; `currency` missing", _REQUEST),
    Code("idempotency_key_reused", 422, "The idempotency key stands for another request",
         "the key of an earlier request, with another amount", _REQUEST),
    Code("internal_error", 500, "A defect of ours",
         "a defect of the service; the log has it under `request_id`", _REQUEST),
    Code("database_down", 503, "The database does not answer", "PostgreSQL is being restarted", _REQUEST),
    Code("kafka_down", 503, "Kafka does not answer", "the broker did not acknowledge within ten seconds", _REQUEST),
    Code("starting", 503, "The service is not ready", "the database is not prepared for this version", _REQUEST),
    Code("account_exists", 409, "The account was opened before",
         "opening an account again under another idempotency key", _COMMAND),
    Code("ambiguous_price_book", 409, "No single price book fits the account",
         "opening in CNY while two books are in CNY", _COMMAND),
    Code("currency_mismatch", 409, "The currencies differ", "a plan in USD for an account in CNY", _COMMAND),
    Code("invalid_starts_at", 409, "The cycle would begin too far ahead", "`starts_at` in the year 9999", _COMMAND),
    Code("duplicate_grant_id", 409, "The grant exists on this account", "`grant_id` of an earlier purchase", _COMMAND),
    Code("duplicate_payment_ref", 409, "The payment was booked before on this account",
         "`payment_ref` of an earlier top-up", _COMMAND),
    Code("too_many_buckets", 409, "The account has as many buckets as it may have",
         "a purchase or subscription on an account with 10,000 buckets, ended ones included", _COMMAND),
    Code("insufficient_funds", 409, "The wallet holds too little", "`pay_from: wallet` with an empty wallet", _COMMAND),
    Code("held", 409, "Open holds count on what the command would take",
         "a transfer, refund or purchase that takes what a reservation holds; closing an account with a reservation",
         _COMMAND),
    Code("unknown_grant", 404, "There is no such grant on this account",
         "a refund of a grant that the account does not have", _COMMAND | _REQUEST),
    Code("ambiguous_grant", 409, "The grant has several buckets",
         "an adjustment of grant `g` that has the buckets `g/1` and `g/2`", _COMMAND),
    Code("bucket_ended", 409, "The bucket has ended or is being refunded",
         "an adjustment of an expired bucket", _COMMAND),
    Code("invalid_amount", 409, "The amount is not possible",
         "an adjustment of 0, or finer than the bucket's unit", _COMMAND),
    Code("nothing_to_refund", 409, "Nothing of the grant is left", "a refund of a grant that is used up", _COMMAND),
    Code("not_refundable", 409, "The grant cannot be refunded",
         "a refund of a grant that was transferred from another account", _COMMAND),
    Code("same_account", 409, "An account cannot transfer to itself", "a transfer to the account itself", _COMMAND),
    Code("same_person", 409, "Who asks and who approves must differ",
         "an adjustment that one person asks for and approves", _COMMAND),
    Code("account_suspended", 409, "A bill of the account is past due",
         "a purchase, subscription, transfer or reservation while a bill is past due", _COMMAND | _REQUEST),
    Code("not_postpaid", 409, "The account is not postpaid", "a bill day for a prepaid account", _COMMAND),
    Code("unknown_bill", 404, "There is no such bill on this account",
         "a collection or chargeback of a bill that was not issued", _COMMAND),
    Code("amount_exceeds_bill", 409, "More than the bill",
         "more collected than is open, or more charged back than was paid", _COMMAND),
    Code("unknown_subscription", 404, "There is no such subscription on this account",
         "a cancellation of a subscription that was never started", _COMMAND),
    Code("duplicate_subscription_id", 409, "The account has a subscription of this id",
         "the id of an existing subscription of the account", _COMMAND),
    Code("subscription_ended", 409, "The subscription has ended",
         "a change of a subscription that was cancelled and is over", _COMMAND),
    Code("subscription_suspended", 409, "The subscription is suspended",
         "a suspension of a suspended subscription; a change of one", _COMMAND),
    Code("subscription_not_suspended", 409, "The subscription is not suspended",
         "a resumption of a running subscription", _COMMAND),
    Code("plan_withdrawn", 409, "The plan is no longer sold",
         "a purchase of a plan after the `withdrawn_from` of its latest version, which the detail states", _COMMAND),
    Code("plan_not_renewable", 409, "The plan begins with its first use",
         "a subscription of a plan that begins with its first use", _COMMAND),
    Code("cycle_mismatch", 409, "The plans have different cycles",
         "an immediate change to a plan with another cycle", _COMMAND),
    Code("cycle_without_end", 409, "The running cycle has no end",
         "an immediate change in a cycle that never ends", _COMMAND),
    Code("unknown_usage", 404, "No such usage was rated on this account",
         "a void of usage that was rejected, or that another account paid", _COMMAND),
    Code("usage_voided", 409, "The usage was voided before", "a void or a correction of voided usage", _COMMAND),
    Code("correction_conflict", 409, "What happened afterwards contradicts the correction",
         "a void of usage after which a bucket that it emptied was given to another account", _COMMAND),
    Code("history_differs", 409, "The account's history does not lead to its balances",
         "a void on an account whose row was changed by hand; run `audit`", _COMMAND),
    Code("history_unavailable", 409, "The account's history cannot be read now",
         "a void while Kafka does not answer", _COMMAND),
    Code("session_exists", 409, "The charging session exists", "beginning a charging session twice", _REQUEST),
)
# fmt: on
"""Every code; those of records first, in the order of docs/reference/usage-events.md, "Rejections"."""


def codes_of(use: Use) -> dict[str, Code]:
    """Return the rows of a use by code, in the order of the table."""
    return {row.code: row for row in TABLE if use in row.uses}


CODES: frozenset[str] = frozenset(row.code for row in TABLE)
"""All codes of all uses."""

REASONS: tuple[str, ...] = tuple(codes_of(Use.RECORD))
"""All reasons for the rejection of a record; the wire form is the text."""
