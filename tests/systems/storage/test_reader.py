"""Readers bring each shard once and in order, over a link whose time is that of the formula."""

import threading
import time

import pytest
import torch.distributed as dist

from parallel_lab import Link, launch
from parallel_lab.systems.storage import Far, Local, Memory, Prefetcher, formats, formulas, measure, reader
from parallel_lab.systems.storage.s3 import S3

SHARDS = [f"s/{number:02d}" for number in range(12)]


class Clock:
    """Time that passes when somebody sleeps."""

    now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(reader, "time", one)
    return one


def filled(size=1000):
    store = Memory()
    for number, key in enumerate(SHARDS):
        store.put(key, bytes([number]) * size)
    return store


def test_each_request_takes_its_latency_and_its_bytes(clock):
    far = Far(filled(), Link(0.5, 1000.0, gap_s=0))
    spent = []
    for ask in (
        lambda: far.get(SHARDS[0]),
        lambda: far.get_range(SHARDS[0], 0, 250),
        lambda: far.put("new", bytes(2000)),
        far.list,
        lambda: far.delete("new"),
    ):
        began = clock.now
        ask()
        spent.append(clock.now - began)
    assert spent == pytest.approx([1.5, 0.75, 2.5, 0.5, 0.5])
    assert spent[0] == formulas.request_s(1000, 0.5, 1000.0)


@pytest.mark.parametrize(("gap_s", "last_s"), [(0, 3.5), (None, 4.5)])
def test_parallel_requests_share_the_link_and_their_latencies_overlap(monkeypatch, gap_s, last_s):
    """Three requests at the same moment; without `gap_s=0` the port is held for each latency as well."""
    clock, slept = Clock(), []
    clock.sleep = slept.append
    monkeypatch.setattr(reader, "time", clock)
    far = Far(filled(), Link(0.5, 1000.0, gap_s=gap_s))
    for key in SHARDS[:3]:
        far.get(key)
    assert slept[0] == 1.5
    assert slept[2] == pytest.approx(last_s)


def test_what_the_store_itself_takes_counts_within_the_links_time(clock):
    class Slow(Memory):
        def get(self, key):
            clock.now += 0.4
            return super().get(key)

    store = Slow()
    store.put("a", bytes(1000))
    Far(store, Link(0.5, 1000.0)).get("a")
    assert clock.now == 101.5
    Far(store, Link(0.1, 1e9)).get("a")
    assert clock.now == pytest.approx(101.9), "the store was slower than the link"


def test_readers_fetch_at_the_same_time_and_in_order():
    together = threading.Barrier(3)

    class Meets(Memory):
        def get(self, key):
            if key in SHARDS[:3]:
                together.wait(60)
            return super().get(key)

    store = Meets()
    store.objects = filled().objects
    assert [data[0] for data in reader.fetched(store, SHARDS, readers=3)] == list(range(12))
    assert list(Prefetcher([b"plain", {"any": "thing"}])) == [b"plain", {"any": "thing"}]


def test_a_large_object_is_read_in_ranges():
    store = Memory()
    store.put("checkpoint", bytes(range(256)) * 40)
    assert reader.read_ranges(store, "checkpoint", 10_240, part_bytes=1000, readers=3) == store.get("checkpoint")
    with pytest.raises(ValueError, match=r"10240 bytes, expected 10241"):
        reader.read_ranges(store, "checkpoint", 10_241, part_bytes=10_241)


def test_each_shard_belongs_to_one_rank():
    for ranks in (1, 2, 3, 4, 5, 13):
        parts = [reader.of_rank(SHARDS, rank, ranks) for rank in range(ranks)]
        assert sorted(shard for part in parts for shard in part) == SHARDS
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_read_every_sample_once_through_the_object_store(endpoint, closing):
    """Four ranks, each with a client of its own, over an emulated link."""
    store = closing(S3(endpoint, bucket="ranks"))
    samples = [(f"{number:03d}", b"%d" % number) for number in range(50)]
    shards = formats.write_shards(store, "s", samples, 6)

    def read(far):
        mine = reader.of_rank(shards, dist.get_rank(), dist.get_world_size())
        batches = list(reader.unpacked(reader.fetched(far, mine, readers=2), formats.from_tar, 4))
        far.close()
        return batches

    results = launch(read, Far(store, Link(1e-3, 1e8, gap_s=0)), ranks=4).results
    assert sorted(sample for batches in results for batch in batches for sample in batch) == samples


def test_what_is_measured_is_what_was_asked(tmp_path):
    store = Local(tmp_path)
    written = measure.writes(store, [f"k{number}" for number in range(20)], 1000, writers=4)
    read = measure.reads(store, store.list(), readers=3)
    for each in (written, read):
        assert (each.bytes, len(each.latencies_s)) == (20_000, 20)
        assert each.bytes_per_s * each.wall_s == pytest.approx(20_000)
        assert each.requests_per_s * each.wall_s == pytest.approx(20)
        assert max(each.latencies_s) <= each.wall_s
    assert len({store.get(key) for key in store.list()}) == 20, "no two objects are alike"
    assert measure.reads(store, ["k1"]).bytes == 1000


def test_one_reader_waits_for_each_and_several_do_not(monkeypatch):
    inside, most, lock = [], [], threading.Lock()

    def request(item):
        with lock:
            inside.append(item)
            most.append(len(inside))
        time.sleep(0)
        with lock:
            inside.remove(item)
        return 1

    measure.measure(request, range(50))
    assert max(most) == 1
    together = threading.Barrier(3)
    assert measure.measure(lambda item: together.wait(60) and 0, range(3), readers=3).bytes == 0


def test_percentiles_are_values_that_were_measured():
    values = [float(number) for number in range(100, 0, -1)]
    assert [measure.percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert measure.percentile([3.0], 99) == 3.0
    assert measure.percentile([1.0, 2.0], 50) == 1.0
    for wrong in (([], 50), ([1.0], 0), ([1.0], 101)):
        with pytest.raises(ValueError, match="percentile"):
            measure.percentile(*wrong)
    assert str(measure.Measured(10**6, 0.5, (0.1, 0.2))) == "2.00 MB/s, 4 requests/s, p50 100 ms, p99 200 ms"
