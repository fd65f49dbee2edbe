"""Contract liability of a fee: its split between buckets, and the revenue that a burn earns."""

from billing.catalog.model import Plan
from schemas.currencies import to_minor_unit
from schemas.units import MILLION, divide_half_even


def earned_pico(liability_pico: int, burned_micro: int, remaining_micro: int) -> int:
    """Return the revenue of a burn: liability left x burned / remaining before the burn, half even to 1e-12.

    The burn that empties the bucket earns all of the liability that is left.
    """
    if burned_micro == remaining_micro:
        return liability_pico
    return divide_half_even(liability_pico * burned_micro, remaining_micro)


def share_liability(net_pico: int, plan: Plan) -> list[int]:
    """Split a net fee between the buckets of a plan by fee share, to the minor unit; the last bucket takes the rest.

    The cumulative sum is rounded (half away from zero) after each bucket, so that no bucket's part can be negative.
    """
    parts: list[int] = []
    share_micro = 0
    for bucket in plan.buckets[:-1]:
        share_micro += bucket.fee_share_micro
        upto_pico = to_minor_unit(net_pico * share_micro, MILLION, plan.currency)
        parts.append(upto_pico - sum(parts))
    return [*parts, net_pico - sum(parts)]
