"""What a rank tells about itself: numbers by name over HTTP, in Prometheus' format, written by its own client library.

A monitor asks (pull): every rank listens on a port of its own and answers with the values as they are. A file in a
folder that all see says where (service discovery by files), with the rank as a label. So a monitor also knows who does
not answer: `up` is 0 then, and nothing else of that rank can be asked.

    training_compute_seconds              gauge     the last step's own work, before the exchange: it differs by rank
    training_step_seconds                 histogram whole steps; in a synchronous job all ranks have the same
    training_tokens_total                 counter   it only grows; rate() makes tokens a second of it
    training_queue_batches                gauge     batches that the loader has ready
    training_heartbeat_timestamp_seconds  gauge     when this rank last began or ended its own work, Unix time
    training_computing                    gauge     1 at its own work, 0 while it waits for others

The last two belong together. When one rank of a synchronous job stands still, all do: every heartbeat grows old, and
only the rank that stands still is at its own work.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.parser import text_string_to_metric_families

COMPUTE, COMPUTING = "training_compute_seconds", "training_computing"
QUEUE, HEARTBEAT = "training_queue_batches", "training_heartbeat_timestamp_seconds"
UP = "up"
HOST = "127.0.0.1"
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
Samples = dict[str, dict[str, float]]  # by metric, by rank


class Exporter:
    """The metrics of one rank. `step` is called around its own work, `exchanged` after the exchange."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.compute = Gauge(COMPUTE, "This rank's work in the last step", registry=self.registry)
        self.whole = Histogram("training_step_seconds", "Steps", buckets=BUCKETS, registry=self.registry)
        self.tokens = Counter("training_tokens", "Tokens trained on", registry=self.registry)
        self.queue = Gauge(QUEUE, "Batches that are ready", registry=self.registry)
        self.heartbeat = Gauge(HEARTBEAT, "When work last began or ended", registry=self.registry)
        self.computing = Gauge(COMPUTING, "1 at its own work", registry=self.registry)
        self.began_s = time.perf_counter()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around this rank's own work of a step."""
        self.began_s = time.perf_counter()
        self._beat(1)
        yield
        self.compute.set(time.perf_counter() - self.began_s)
        self._beat(0)

    def exchanged(self, tokens: int) -> None:
        """After the exchange that ends a step on `tokens` tokens."""
        self.whole.observe(time.perf_counter() - self.began_s)
        self.tokens.inc(tokens)

    def _beat(self, computing: int) -> None:
        self.computing.set(computing)
        self.heartbeat.set_to_current_time()

    @contextmanager
    def serving(self, folder: Path, rank: int) -> Iterator[int]:
        """Answers on a free port of the loopback while the block runs, and says so in `folder`."""
        server, thread = start_http_server(0, HOST, self.registry)
        target = [{"targets": [f"{HOST}:{server.server_port}"], "labels": {"rank": str(rank)}}]
        written = folder / f"rank-{rank}.part"
        written.write_text(json.dumps(target))
        os.replace(written, folder / f"rank-{rank}.json")  # a monitor never reads half a file
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def ask(port: int, path: str, patience_s: float = 1.0) -> str:
    """What a server on the loopback answers.

    Raises:
        OSError: it does not answer, or not in time.
    """
    connection = HTTPConnection(HOST, port, timeout=patience_s)  # not through the environment's proxy
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except HTTPException as broken:
        raise OSError(f"port {port} broke off: {broken!r}") from broken
    finally:
        connection.close()


def scrape(folder: Path) -> Samples:
    """The samples of all ranks that have said in `folder` where they are; `up` is 0 for one that does not answer."""
    samples: Samples = {UP: {}}
    for file in sorted(folder.glob("rank-*.json")):
        (target,) = json.loads(file.read_text())
        rank, port = target["labels"]["rank"], int(target["targets"][0].rpartition(":")[2])
        try:
            text = ask(port, "/metrics")
        except OSError:
            samples[UP][rank] = 0.0
            continue
        samples[UP][rank] = 1.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.labels:  # a histogram's buckets have their bound as a label
                    samples.setdefault(sample.name, {})[rank] = sample.value
    return samples
