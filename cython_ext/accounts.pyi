from collections.abc import Callable, Mapping
from typing import Any

from billing.accounts.account import Account, Bucket
from billing.calculator.packed_extras import ExtrasPacker
from billing.catalog.model import Plan, PlanBucket
from cython_ext.tables import TextTable

class AccountStore:
    numbers: TextTable
    words: TextTable
    def __init__(
        self,
        numbers: TextTable,
        account_type: type[Account],
        bucket_type: type[Bucket],
        packer: ExtrasPacker,
    ) -> None: ...
    def __len__(self) -> int: ...
    def rule(self, plan: Plan, bucket_no: int) -> int: ...
    def put(
        self,
        account: Account,
        sorted_buckets: list[Bucket],
        rules: list[int],
        floors: list[int],
        stored: bool,
        at_least: int = 0,
    ) -> None: ...
    def put_rows(
        self,
        account_rows: list[tuple[Any, ...]],
        bucket_rows: list[tuple[Any, ...]],
        terms_of: Mapping[tuple[str, int, int, str, int], tuple[int, int, PlanBucket]],
        order_of: Callable[[PlanBucket, int, int, str], tuple[object, ...]],
    ) -> None: ...
    def has(self, number: int) -> bool: ...
    def get(self, account_id: str) -> Account | None: ...
    def get_part(self, account_id: str, places: list[int]) -> Account: ...
    def put_part(self, account: Account, places: list[int], floors: list[int]) -> None: ...
    def take(self, balance_pieces: list[bytes]) -> tuple[int, memoryview, bytes, bytes, bytes, bytes, bytes, bytes]: ...
