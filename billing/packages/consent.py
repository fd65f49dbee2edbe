"""Consent to pay for overage: what ``overage.consented.v1`` does. Plain rules. Never: what overage costs."""

from billing.accounts.account import NO_END_US, Account
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Consent
from schemas.commands import ConsentOverage
from schemas.refusals import Refusal


def consent_overage(data: ConsentOverage, account: Account, scene: CommandContext) -> Account | Refusal:
    """The account agrees to pay for overage of a plan, for usage from the command's time until ``until``.

    What was agreed before keeps its beginning; an ``until`` that is not after it takes the consent back.
    """
    if scene.catalog.plan(data.plan) is None:
        return Refusal("unknown_plan", f"there is no plan {data.plan!r}")
    time_us = scene.command.time_us
    known = account.extras.consents.pop(data.plan, None)
    from_us = known.from_us if known is not None and known.from_us <= time_us <= known.until_us else time_us
    until_us = NO_END_US if data.until_us is None else data.until_us
    if from_us < until_us:
        account.extras.consents[data.plan] = Consent(from_us, until_us)
    return account
