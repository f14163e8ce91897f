"""Every store gives the same bytes for the same calls, and says in the same words what is not there."""

import os
import pickle

import pytest
from botocore.exceptions import EndpointConnectionError

from parallel_lab.systems.storage import Far, Local, Memory, Missing, Refused
from parallel_lab.systems.storage.s3 import S3

KINDS = ("memory", "local", "far", "s3", "moosefs", "juicefs", "redis", "memcached")
every = pytest.mark.parametrize("store", KINDS, indirect=True)


@every
def test_what_is_put_is_got_whole_and_in_ranges(store):
    objects = {
        "a/b/one.bin": os.urandom(100_003),
        "a/b-2": b"x",
        "a/empty": b"",
        "Z": b"two\r\nEND\r\n",
        "ä/ü": b"\0" * 7,
    }
    for key, data in objects.items():
        store.put(key, data)
    assert {key: store.get(key) for key in objects} == objects
    data = objects["a/b/one.bin"]
    for start, length in ((0, 1), (0, len(data)), (99_999, 4), (100_000, 500), (512, 65_536)):
        assert store.get_range("a/b/one.bin", start, length) == data[start : start + length]
    store.put("a/b/one.bin", b"anew")
    assert store.get("a/b/one.bin") == b"anew"
    assert store.list() == ["Z", "a/b-2", "a/b/one.bin", "a/empty", "ä/ü"]  # by bytes: '-' before '/'
    assert store.list("a/b") == ["a/b-2", "a/b/one.bin"]
    assert store.list("a/b/") == ["a/b/one.bin"]
    assert store.list("none/") == []
    for key in store.list():
        store.delete(key)
    assert store.list() == []


@every
def test_what_is_not_there_is_missing_and_no_range_begins_outside(store):
    for ask in (lambda: store.get("no/such"), lambda: store.get_range("no/such", 0, 5)):
        with pytest.raises(Missing, match="there is no object 'no/such'"):
            ask()
    store.delete("no/such")  # as S3 has it: it is gone
    store.put("x/y", b"12345")
    with pytest.raises(Missing):
        store.get("x")  # a folder is no object
    for start, length in ((5, 1), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"x/y: .*range"):
            store.get_range("x/y", start, length)
    store.delete("x/y")
    with pytest.raises(Missing):
        store.get("x/y")


@every
@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "../a", "a/./b", "a\0b"])
def test_a_key_that_leads_elsewhere_is_refused(store, key):
    for ask in (lambda: store.put(key, b""), lambda: store.get(key), lambda: store.delete(key)):
        with pytest.raises(ValueError, match="is no key"):
            ask()


def test_a_writer_that_fails_leaves_the_old_object_and_nothing_else(tmp_path, monkeypatch):
    store = Local(tmp_path, sync=True)
    store.put("a/b", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        store.put("a/b", b"new")
    assert store.get("a/b") == b"old"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_half_written_file_is_not_listed(tmp_path):
    store = Local(tmp_path)
    store.put("a/b", b"1")
    (tmp_path / "a" / ".aside-xyz").write_bytes(b"half")
    assert store.list() == ["a/b"]


def test_a_file_that_was_forgotten_reads_the_same(tmp_path):
    store = Local(tmp_path)
    store.put("a", b"cold")
    store.forget("a")
    assert store.get("a") == b"cold"


def test_a_wrong_secret_or_key_is_refused(endpoint):
    for wrong in (endpoint._replace(secret="wrong"), endpoint._replace(access_key="nobody")):
        with pytest.raises(Refused, match="refused"):
            S3(wrong, bucket="all-stores")


def test_parts_make_one_object_that_appears_at_the_end(endpoint, closing, monkeypatch):
    store = closing(S3(endpoint, bucket="parts"))
    data = os.urandom(12 * 2**20 + 5)
    assert store.put_parts("large", data, part_bytes=5 * 2**20) == 3
    assert store.get("large") == data
    seen, send = [], store.client.upload_part

    def fails(**request):
        seen.append(store.list())
        if request["PartNumber"] == 2:
            raise OSError("the writer dies")
        return send(**request)

    monkeypatch.setattr(store.client, "upload_part", fails)
    with pytest.raises(OSError, match="the writer dies"):
        store.put_parts("half", data, part_bytes=5 * 2**20, writers=1)
    assert seen[1] == ["large"], "one part is there"
    assert store.list() == ["large"], "nothing of it is seen"


def test_a_list_goes_on_after_a_thousand_keys(endpoint, closing):
    store = closing(S3(endpoint, bucket="many"))
    for number in range(4):
        store.put(f"k{number}", b"")
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket="many", PaginationConfig={"PageSize": 3})
    assert [len(page["Contents"]) for page in pages] == [3, 1]
    assert store.list() == ["k0", "k1", "k2", "k3"]


def test_a_server_that_is_not_there_is_an_error_at_once(endpoint):
    with pytest.raises(EndpointConnectionError):
        S3(endpoint._replace(url="http://127.0.0.1:9"))


def test_a_bucket_goes_to_another_process_and_is_opened_there(endpoint, closing):
    store = closing(S3(endpoint, bucket="travels", connections=3))
    store.put("a", b"1")
    again = closing(pickle.loads(pickle.dumps(store)))
    assert (again.get("a"), again.bucket, again.connections) == (b"1", "travels", 3)
    assert isinstance(pickle.loads(pickle.dumps(Far(Memory(), link=None))), Far)
