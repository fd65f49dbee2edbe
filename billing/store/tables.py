"""SQLAlchemy Core definitions of the tables that reports read.

The migrations define the schema; a test compares the two.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Dialect, Integer, LargeBinary, MetaData, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, ChangedBy, Form
from billing.commits.columns import Column as ListedColumn

metadata = MetaData()


class ExactInteger(TypeDecorator[int]):
    """Column type ``numeric(38,0)`` read as ``int``, also in sums. SQLAlchemy itself returns decimals or floats."""

    impl = Numeric(38, 0)
    cache_ok = True

    def process_result_value(self, value: int | Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def _text(name: str, primary_key: bool = False, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text(collation="C"), nullable=nullable, primary_key=primary_key)


def _integer(name: str, primary_key: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=False, primary_key=primary_key)


def _big(name: str, primary_key: bool = False, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable, primary_key=primary_key)


def _exact(name: str) -> Column[int]:
    return Column(name, ExactInteger, nullable=False)


def _hash() -> Column[bytes]:
    return Column("row_hash", LargeBinary)


_TYPES: dict[Form, TypeEngine[Any]] = {
    Form.TEXT: Text(collation="C"),
    Form.INTEGER: Integer(),
    Form.BIGINT: BigInteger(),
    Form.EXACT: ExactInteger(),
    Form.END: BigInteger(),
    Form.EXTRAS: JSON(),
}


def _listed(columns: Iterable[ListedColumn]) -> Iterable[Column[Any]]:
    for one in columns:
        key = one.changed_by is ChangedBy.KEY
        yield Column(one.name, _TYPES[one.form], nullable=one.form is Form.END, primary_key=key)


account = Table("account", metadata, *_listed(ACCOUNT_COLUMNS), _integer("partition"), _hash())
bucket = Table("bucket", metadata, *_listed(BUCKET_COLUMNS), _integer("partition"), _hash())
journal = Table(
    "journal",
    metadata,
    _integer("partition", primary_key=True),
    _big("commit_no", primary_key=True),
    _integer("line_no", primary_key=True),
    _text("account_code"),
    _text("currency"),
    _text("detail"),
    _exact("amount_pico"),
    _text("concerns", nullable=True),
    _text("account", nullable=True),
)
commit = Table(
    "commit",
    metadata,
    _integer("partition", primary_key=True),
    _big("commit_no", primary_key=True),
    _big("log_time_us"),
)
rollup = Table(
    "rollup",
    metadata,
    _integer("partition", primary_key=True),
    _big("commit_no", primary_key=True),
    _integer("row_no", primary_key=True),
    _big("hour_us"),
    _text("price_book"),
    _text("currency"),
    _text("model"),
    _text("hardware_tier"),
    _text("energy_source"),
    _text("site"),
    _text("channel"),
    _text("service_tier"),
    _text("outcome"),
    _big("events"),
    _exact("tokens"),
    _exact("standard_micro"),
    _exact("amount_pico"),
    _exact("net_pico"),
    _exact("burned_micro"),
    _exact("charged_pico"),
    _exact("absorbed_micro"),
    _exact("absorbed_pico"),
    _exact("revenue_pico"),
)
hold = Table(
    "hold",
    metadata,
    _text("reservation_id", primary_key=True),
    _text("account"),
    _text("kind"),
    _text("state"),
    Column("held_micro", JSONB, nullable=False),
    _exact("wallet_pico"),
    Column("terms", JSONB, nullable=False),
    Column("steps", JSONB, nullable=False),
    Column("event", Text(collation="C")),
    Column("sent_again", Boolean, nullable=False),
    _big("created_us"),
    _big("expires_us"),
    _big("send_after_us"),
)
