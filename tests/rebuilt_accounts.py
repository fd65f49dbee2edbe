"""Wallets and buckets rebuilt from the published topics alone, as a consumer would (docs/consuming-our-topics.md)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


def _zeros() -> defaultdict[str, Fraction]:
    return defaultdict(Fraction)


@dataclass
class RebuiltAccount:
    """Wallet and buckets of one account, as the topics give them."""

    wallet: Fraction = Fraction(0)
    amount: defaultdict[str, Fraction] = field(default_factory=_zeros)
    remaining: defaultdict[str, Fraction] = field(default_factory=_zeros)

    def differences(self, document: dict[str, Any]) -> list[str]:
        """Return how a published account object differs."""
        found = [] if self.wallet == Fraction(document["wallet"]) else [f"wallet {float(self.wallet)}"]
        listed = {bucket["grant_id"]: bucket for bucket in document["buckets"]}
        for name in sorted(listed.keys() | self.amount.keys()):
            bucket = listed.get(name, {"amount": "0", "remaining": "0"})
            rebuilt = self.amount[name], self.remaining[name]
            if rebuilt != (Fraction(bucket["amount"]), Fraction(bucket["remaining"])):
                found.append(f"{name}: {[float(one) for one in rebuilt]}, not {bucket}")
        return found


@dataclass
class Rebuilt:
    """All accounts, and the sums of the movements by purpose."""

    accounts: defaultdict[str, RebuiltAccount] = field(default_factory=lambda: defaultdict(RebuiltAccount))
    sums: defaultdict[tuple[str, str], Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    """(purpose, field) to the sum of that field."""
    elsewhere: defaultdict[str, Fraction] = field(default_factory=_zeros)
    """Purpose to the sum of amounts that the wallet took no part in."""

    def add_usage(self, events: Iterable[dict[str, Any]]) -> None:
        """Add records of ``usage.rated``."""
        for event in events:
            for line in event["data"]["events"]:
                account = self.accounts[line["account"]]
                account.wallet -= Fraction(line["charged"])
                for burned in line["burned"]:
                    account.remaining[burned["grant_id"]] -= Fraction(burned.get("amount", burned["standard_tokens"]))

    def add_notices(self, events: Iterable[dict[str, Any]]) -> None:
        """Add records of ``account.events``."""
        for event in events:
            for movement in event["data"].get("movements", []):
                self._add(self.accounts[event["data"]["account"]], movement)

    def _add(self, account: RebuiltAccount, movement: dict[str, Any]) -> None:
        purpose = movement["purpose"]
        for name in ("amount", "net", "tax", "liability"):
            self.sums[purpose, name] += Fraction(movement.get(name, 0))
        if "quantity" in movement:
            account.remaining[movement["grant_id"]] += Fraction(movement["quantity"])
            account.amount[movement["grant_id"]] += Fraction(movement["granted"])
            return
        assert Fraction(movement["amount"]) == Fraction(movement["net"]) + Fraction(movement["tax"]), movement
        wallet = Fraction(movement["wallet"])
        account.wallet += wallet
        if wallet == 0:
            self.elsewhere[purpose] += Fraction(movement["amount"])
        else:
            assert wallet == Fraction(movement["amount"]), movement

    def total(self, name: str, *purposes: str) -> Fraction:
        """Return the sum of a field over some purposes."""
        return sum((self.sums[purpose, name] for purpose in purposes), Fraction(0))
