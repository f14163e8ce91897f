"""A cache answers what it has, never gives an old object, and hits as often as the order of reading lets it."""

import math
import random

import pytest

from parallel_lab.systems.storage import Memory, key_value, servers
from parallel_lab.systems.storage.key_value import Cached, Memcached, Redis, che_hit_rate, lru_hit_rate


@pytest.fixture(params=["redis", "memcached"])
def cache(request, closing):
    path = request.getfixturevalue(f"{request.param}_path")
    return closing(Redis(path) if request.param == "redis" else Memcached(path))


def test_a_second_read_comes_from_the_cache_until_the_object_changes(cache):
    store = Memory()
    store.put("a/b", b"old")
    cached = Cached(store, cache)
    assert [cached.get("a/b"), cached.get("a/b"), cached.get_range("a/b", 1, 2)] == [b"old", b"old", b"ld"]
    assert (cached.hits, cached.misses, cached.hit_rate) == (2, 1, 2 / 3)
    cached.put("a/b", b"new")
    assert cached.get("a/b") == b"new"
    store.put("a/b", b"behind its back")
    assert cached.get("a/b") == b"new", "a cache does not see who writes past it"
    cached.delete("a/b")
    assert cache.get("a/b") is None


def test_all_bytes_survive_the_protocol(cache):
    for value in (b"", bytes(range(256)) * 20, b"END\r\n", b"VALUE x 0 3\r\nabc\r\nEND\r\n"):
        cache.set("k", value)
        assert cache.get("k") == value
    cache.drop("k")
    cache.drop("k")
    assert cache.get("k") is None


def test_memcached_refuses_names_that_its_protocol_cannot_carry(memcached_path, closing):
    cache = closing(Memcached(memcached_path))
    for name in ("a b", "a" * 251, "a\nb"):
        with pytest.raises(ValueError, match="memcached takes no key"):
            cache.get(name)


def test_what_is_too_large_for_memcached_is_not_kept(closing):
    if reason := servers.missing("memcached"):
        pytest.skip(reason)
    with servers.memcached(object_mib=1) as path:
        cached = Cached(Memory(), closing(Memcached(path)))
        cached.put("large", bytes(2 * 2**20))
        assert [len(cached.get("large")) for _ in range(2)] == [2 * 2**20] * 2
        assert (cached.hits, cached.misses) == (0, 2)


def test_a_full_redis_gives_up_what_it_holds_and_keeps_running(closing):
    if reason := servers.missing("redis"):
        pytest.skip(reason)
    store, size = Memory(), 2**16
    for number in range(100):
        store.put(f"shard{number}", bytes(size))
    rates = {}
    for mib in (2, 4, 16):
        with servers.redis(memory_bytes=mib * 2**20) as path:
            cached = Cached(store, closing(Redis(path)))
            for _ in range(2):
                for number in range(100):
                    assert len(cached.get(f"shard{number}")) == size
            rates[mib] = cached.hits / 100
    assert rates[16] == 1.0, "all 6.5 MB are there in the second epoch"
    assert max(rates[2], rates[4]) < 0.45, "less than the half that fits: what comes next was given up before"


def test_without_its_client_redis_says_what_to_install(monkeypatch):
    monkeypatch.setattr(key_value, "redis", None)
    with pytest.raises(ModuleNotFoundError, match="make storage"):
        Redis("nowhere")


def test_an_epoch_in_the_same_order_never_hits_until_everything_fits():
    epochs = [key for _ in range(5) for key in range(100)]
    assert lru_hit_rate(epochs, 99) == 0.0
    assert lru_hit_rate(epochs, 100) == 4 / 5
    assert lru_hit_rate([], 3) == 0.0


def test_epochs_in_a_new_order_hit_less_than_the_share_that_fits():
    order, epochs = random.Random(0), 60
    reads = [key for _ in range(epochs) for key in order.sample(range(200), 200)]
    rates = [lru_hit_rate(reads, slots) * epochs / (epochs - 1) for slots in (50, 100, 150)]
    assert all(rate < share - 0.05 for rate, share in zip(rates, (0.25, 0.5, 0.75), strict=True))
    assert rates == sorted(rates)


def test_che_agrees_with_a_simulated_cache_where_reads_are_independent():
    popularity = [1 / rank for rank in range(1, 501)]  # Zipf
    draws = random.Random(1).choices(range(500), popularity, k=60_000)
    for slots in (10, 100, 400):
        assert che_hit_rate(popularity, slots) == pytest.approx(lru_hit_rate(draws, slots), abs=0.02)
    assert che_hit_rate([1.0] * 40, 10) == pytest.approx(0.25), "all alike: the share that fits"
    assert che_hit_rate(popularity, 500) == 1.0
    assert math.isclose(che_hit_rate([2, 2], 1), che_hit_rate([1, 1], 1))
    with pytest.raises(ValueError, match="at least one"):
        che_hit_rate(popularity, 0)
