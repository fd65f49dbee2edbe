"""The local stack: Kafka, PostgreSQL, relay and workers as supervised processes of one data folder.

    stack = start(folder, only_servers=True)
    ... stack.kafka, stack.admin_database_url, stack.pids["kafka"] ...
    stop(folder)

Light to import: each supervisor is a process of its own and imports this too.
"""

from tokenbill.stack.down import stop
from tokenbill.stack.info import ProcessInfo, StackInfo, info
from tokenbill.stack.up import start
from tokenbill.stack.waiting import NotReady

__all__ = ["NotReady", "ProcessInfo", "StackInfo", "info", "start", "stop"]
