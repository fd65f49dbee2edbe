"""A worker like ``tokenbill worker``, but with at most RECORDS records per commit. Arguments: NAME PORT RECORDS."""

import os
import sys

from billing.catalog.model import Catalog
from billing.commits.commit_record import PartitionState
from billing.engine.partition_engine import PartitionEngine
from billing.store.store import Store
from streams.worker.worker_app import WorkerSettings, build_app, run_app
from streams.worker.writer import WriterSettings
from tokenbill.commands.process import calculator_class


def main() -> int:
    name, port, records = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    make_calculator = calculator_class()
    with Store(os.environ["TOKENBILL_DATABASE_URL"], pool_size=10) as store:

        def make_engine(state: PartitionState, catalog_epoch: int, catalog: Catalog) -> PartitionEngine:
            return PartitionEngine(state, catalog_epoch, catalog, store, make_calculator())

        writer = WriterSettings(max_commit_records=records, first_commit_records=records)
        settings = WorkerSettings(
            os.environ["TOKENBILL_KAFKA"], name, port, float(os.environ["TOKENBILL_SESSION_TIMEOUT"]), writer=writer
        )
        return run_app(build_app(settings, store, make_engine))


if __name__ == "__main__":
    sys.exit(main())
