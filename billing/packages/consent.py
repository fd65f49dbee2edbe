"""Consent to pay for overage: the rule of the command ``overage.consented.v1``.

Overage itself is :mod:`billing.burning.overage`.
"""

from billing.accounts.account import NO_END_US, Account
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Consent
from schemas.commands import ConsentOverage
from schemas.refusals import Refusal


def consent_overage(data: ConsentOverage, account: Account, context: CommandContext) -> Account | Refusal:
    """Record that the account agrees to pay for overage of a plan, for usage from the command's time until ``until``.

    A consent that is in force at the command's time keeps its start. If ``until`` is not after the start, the consent
    is withdrawn.
    """
    if context.catalog.plan(data.plan) is None:
        return Refusal("unknown_plan", f"there is no plan {data.plan!r}")
    time_us = context.command.time_us
    known = account.extras.consents.pop(data.plan, None)
    from_us = known.from_us if known is not None and known.from_us <= time_us <= known.until_us else time_us
    until_us = NO_END_US if data.until_us is None else data.until_us
    if from_us < until_us:
        account.extras.consents[data.plan] = Consent(from_us, until_us)
    return account
