from billing.accounts.account import Account, Bucket
from billing.calculator.packed_extras import ExtrasPacker
from billing.catalog.model import Plan
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
    def has(self, number: int) -> bool: ...
    def get(self, account_id: str) -> Account | None: ...
    def get_part(self, account_id: str, places: list[int]) -> Account: ...
    def put_part(self, account: Account, places: list[int], floors: list[int]) -> None: ...
    def take(self, balance_pieces: list[bytes]) -> tuple[int, memoryview, bytes, bytes, bytes, bytes, bytes, bytes]: ...
