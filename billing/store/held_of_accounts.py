"""Reads what open holds hold of accounts now, which the commands of a commit must leave. Never writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from billing.accounts.account import Account
from billing.accounts.held import NOTHING, Held
from billing.catalog.model import Catalog
from billing.reservations.amounts import overcommitted
from billing.reservations.operations import BURNED_LATE_US, HoldContext
from billing.reservations.tariff import Tariff
from billing.store.database import Connection, Database
from billing.store.open_holds import read_held, read_open_holds


def held(
    database: Database, accounts: Sequence[str], read: Callable[[str], Account | None], catalog: Catalog
) -> Mapping[str, Held]:
    """Return what open holds hold, by account; accounts without holds are left out.

    If more is held of a bucket than it has, because usage burned it, the holds are decided again, as the API does.
    """
    with database.transaction() as connection:
        found = read_held(connection, accounts)
        for name, one in found.items():
            account = read(name)
            if account is not None and overcommitted(account, one.amounts):
                found[name] = _decided_again(connection, account, one, catalog)
    return found


def _decided_again(connection: Connection, account: Account, rows: Held, catalog: Catalog) -> Held:
    now_us, open_holds = read_open_holds(connection, account.account)
    context = HoldContext(now_us, account, NOTHING, {}, Tariff(catalog))
    context.allot(open_holds)
    last_us = max((hold.expires_us for hold in open_holds), default=0)
    until_us = last_us + BURNED_LATE_US if context.held.wallet_pico else 0
    return replace(rows, amounts=context.held, until_us=until_us, stored=rows.amounts)
