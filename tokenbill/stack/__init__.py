"""The local stack: Kafka, PostgreSQL, workers, relay and the other programs as supervised processes of a data folder.

    stack = start(folder, only_servers=True)
    ... stack.kafka, stack.admin_database_url, stack.pids["kafka"] ...
    stop(folder)

The package loads few libraries on import, because each supervisor is a process of its own that imports it.
"""

from tokenbill.stack.down import remove, stop
from tokenbill.stack.info import ProcessInfo, StackInfo, info
from tokenbill.stack.up import start
from tokenbill.stack.waiting import NotReady

__all__ = ["NotReady", "ProcessInfo", "StackInfo", "info", "remove", "start", "stop"]
