from collections.abc import Callable

from billing.accounts import Account, Bucket
from billing.catalog.model import Plan
from billing.extras import Extras
from cython_ext.tables import TextTable

class AccountStore:
    numbers: TextTable
    words: TextTable
    def __init__(
        self,
        numbers: TextTable,
        account_type: type[Account],
        bucket_type: type[Bucket],
        extras_type: type[Extras],
        extras_json: Callable[[Extras], str],
    ) -> None: ...
    def __len__(self) -> int: ...
    def rule(self, plan: Plan, bucket_no: int) -> int: ...
    def put(
        self, account: Account, sorted_buckets: list[Bucket], rules: list[int], floors: list[int], stored: bool
    ) -> None: ...
    def has(self, number: int) -> bool: ...
    def get(self, account_id: str) -> Account | None: ...
    def take(self, balance_pieces: list[bytes]) -> tuple[int, bytes, bytes, bytes, bytes, bytes, bytes, bytes]: ...
    def bytes_held(self) -> int: ...
