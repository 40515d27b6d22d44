"""What the plugins for content cost: a gateway with all of them, and one without any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from bench.case import Case, Figure, Trial
from bench.daemon import free_port
from bench.error import BenchError
from bench.load import Load, Sink
from bench.newsletter import Newsletter, check_links, check_unsubscribing, check_values
from bench.systems.gateway import ContentGateway, Gateway, PlainGateway
from bench.systems.system import System
from bench.throughput import CPU, DEADLINE_SECONDS, SETTLE_SECONDS, ThroughputTrial

PLAIN = Figure("plain: CPU ms/message", 2, more_is_better=False)
PLUGINS = Figure("with plugins: CPU ms/message", 2, more_is_better=False)
DIFFERENCE = Figure("difference: CPU ms/message", 2, more_is_better=False, bar=1.2)


class ChainCost(Case):
    """The same messages through both, in turn."""

    figures = (PLAIN, PLUGINS, DIFFERENCE)
    alone: ClassVar[bool] = True

    def __init__(self, name: str, title: str, newsletter: Newsletter, seconds: float) -> None:
        super().__init__(name, title)
        self.newsletter = newsletter
        self.seconds = seconds

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[ChainTrial]:
        """Starts both gateways, checks what each makes of one message, and warms them up."""
        content = self.newsletter.message("quoted-printable")
        message = folder / "message"
        message.write_bytes(content.replace(b"\r\n", b"\n"))
        load = Load(len(content), message=message)
        with ExitStack() as stack:
            trials = []
            for gateway in (PlainGateway(system.key), ContentGateway(system.key)):
                place = folder / type(gateway).__name__
                place.mkdir()
                try:
                    trials.append(stack.enter_context(self._started(gateway, load, content, place)))
                except BenchError as error:
                    raise BenchError(str(error), error.log or gateway.log()) from error
            yield ChainTrial(*trials)

    @contextmanager
    def _started(
        self, gateway: Gateway, load: Load, content: bytes, folder: Path
    ) -> Iterator[ThroughputTrial]:
        port, next_hop = free_port(), free_port()
        try:
            record = folder / "record"
            with Sink(next_hop, folder, record) as sink:
                gateway.start(folder / "instance", port, next_hop)
                load.run(1, port, sink, DEADLINE_SECONDS)
                gateway.tree().settle(SETTLE_SECONDS)
            [message] = record.iterdir()
            received = message.read_bytes()
            if isinstance(gateway, ContentGateway):
                gateway.key.verify(received)
                check_values(received)
                check_links(received, self.newsletter.links)
                check_unsubscribing(received)
            elif content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").strip() not in received:
                raise BenchError("the gateway without plugins has changed the message")
            with Sink(next_hop, folder) as sink:
                yield ThroughputTrial(load, gateway, sink, self.seconds / 2)
        finally:
            gateway.stop()


class ChainTrial:
    """Both gateways, warm."""

    def __init__(self, plain: Trial, plugins: Trial) -> None:
        self._plain = plain
        self._plugins = plugins

    def measure(self) -> Mapping[str, float]:
        """Measures one after the other; raises BenchError as they do."""
        plain = self._plain.measure()[CPU.name]
        plugins = self._plugins.measure()[CPU.name]
        return {PLAIN.name: plain, PLUGINS.name: plugins, DIFFERENCE.name: plugins - plain}
