"""The servers of these tests, each started once a session, where it can run; the reason where it cannot."""

import pytest

from parallel_lab.network import Link
from parallel_lab.systems.storage import Far, Local, Memory, servers
from parallel_lab.systems.storage.key_value import Cached, Memcached, Redis
from parallel_lab.systems.storage.s3 import S3


@pytest.fixture(autouse=True, scope="module")
def _cheap_launches(by_value):
    """All launches of this folder."""


def needs(name):
    reason = servers.missing(name)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def endpoint():
    needs("s3")
    with servers.s3() as found:
        yield found


@pytest.fixture(scope="session")
def redis_path():
    needs("redis")
    with servers.redis() as path:
        yield path


@pytest.fixture(scope="session")
def memcached_path():
    needs("memcached")
    with servers.memcached() as path:
        yield path


@pytest.fixture(scope="session")
def cluster():
    needs("moosefs")
    with servers.moosefs() as found:
        yield found


@pytest.fixture(scope="session")
def nodes():
    needs("juicefs")
    with servers.juicefs() as folders:
        yield folders


@pytest.fixture
def closing():
    """Closes at the end what a test has opened."""
    opened = []
    yield lambda one: opened.append(one) or one
    for one in opened:
        one.close()


@pytest.fixture
def store(request, tmp_path, closing):
    """The store whose name is the parameter, empty."""
    kind, value = request.param, request.getfixturevalue
    if kind == "memory":
        return Memory()
    if kind == "local":
        return Local(tmp_path, sync=True)
    if kind == "far":
        return Far(Local(tmp_path), Link(1e-4, 1e9, gap_s=0))
    if kind == "s3":
        return closing(S3(value("endpoint"), bucket="all-stores"))
    if kind == "moosefs":
        return Local(value("cluster").folder / "all")
    if kind == "juicefs":
        return Local(value("nodes")[0] / "all")
    cache = Redis(value("redis_path")) if kind == "redis" else Memcached(value("memcached_path"))
    return Cached(Memory(), closing(cache))
