from billing.accounts import Account
from cython_ext.tables import TextTable

class AccountStore:
    numbers: TextTable
    words: TextTable
    def __init__(self, numbers: TextTable, account_type: type[object], bucket_type: type[object]) -> None: ...
