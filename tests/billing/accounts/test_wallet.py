"""Gift money in a wallet: it is spent first and never exceeds the balance."""

from hypothesis import given
from hypothesis import strategies as st

from billing.accounts.account import Account
from billing.accounts.extras import Extras, extras_json, parse_extras
from billing.accounts.wallet import put_in, take_out


def wallet(pico: int = 0, gift_pico: int = 0) -> Account:
    return Account("a", "CNY", "retail", "prepaid", 0, wallet_pico=pico, extras=Extras(gift_pico=gift_pico))


def test_a_gift_is_spent_before_what_was_paid() -> None:
    account = wallet()
    put_in(account, 100, gift=False)
    put_in(account, 30, gift=True)
    take_out(account, 20)
    assert (account.wallet_pico, account.extras.gift_pico) == (110, 10)
    take_out(account, 50)
    assert (account.wallet_pico, account.extras.gift_pico) == (60, 0)


def test_a_gift_covers_what_is_owed_first() -> None:
    account = wallet(-40)
    put_in(account, 30, gift=True)
    assert (account.wallet_pico, account.extras.gift_pico) == (-10, 0)
    put_in(account, 30, gift=True)
    assert (account.wallet_pico, account.extras.gift_pico) == (20, 20)


@given(moves=st.lists(st.tuples(st.sampled_from(["paid", "gift", "out"]), st.integers(0, 10**20)), max_size=30))
def test_gift_is_a_part_of_a_positive_wallet(moves: list[tuple[str, int]]) -> None:
    account = wallet()
    for move, amount_pico in moves:
        if move == "out":
            take_out(account, amount_pico)
        else:
            put_in(account, amount_pico, gift=move == "gift")
        assert 0 <= account.extras.gift_pico <= max(0, account.wallet_pico)


def test_the_document_of_extras_reads_back() -> None:
    assert extras_json(Extras()) == "{}"
    extras = Extras(gift_pico=2**80)
    assert parse_extras(extras_json(extras)) == extras
