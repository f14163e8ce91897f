"""Saving behind the steps: what is written is what was there, an error is told, and a death costs one save at most."""

import os
import signal
import threading

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.runtime import RankFailed
from parallel_lab.systems.resilience import asynchronous, folder
from parallel_lab.systems.resilience.asynchronous import AsyncSaver

pytestmark = pytest.mark.usefixtures("by_value")


def shard(value):
    tensor = torch.full((300, 7), float(value))
    return {"weights": {"a": tensor, "cut": tensor[::2]}, "moments": [tensor + 1, (tensor.long(), "words")], "step": 3}


def test_what_is_written_is_what_was_there_and_the_buffers_are_used_again(tmp_path):
    def fn():
        rank, saver = dist.get_rank(), AsyncSaver(tmp_path, keep=1)
        held = shard(rank)
        places = set()
        for step in range(3):
            saver.save(held, step=step, position=10 * step)
            held["weights"]["a"] += 1  # the run goes on at once
            places.add(tuple(each.data_ptr() for each in saver.buffers.held.values()))
        saver.wait()
        saver.wait()  # nothing is in flight
        assert len(places) == 1 and saver.buffers.bytes == 300 * 7 * (4 + 4 + 8) + 150 * 7 * 4 and saver.stall_s > 0
        found, index = asynchronous.load(tmp_path, rank=rank)
        assert index["step"] == 2 and index["position"] == 20 and index["ranks"] == dist.get_world_size()
        assert torch.equal(found["weights"]["a"], shard(rank + 2)["weights"]["a"])
        assert found["moments"][1][1] == "words" and found["moments"][1][0].dtype == torch.int64
        assert torch.equal(found["weights"]["cut"], shard(rank + 2)["weights"]["cut"])
        saver.save({"a": torch.ones(3)}, step=3)  # another state: other buffers
        saver.wait()

    launch(fn, ranks=3)
    assert [each.name for each in folder.complete(tmp_path)] == ["000003-step-2", "000004-step-3"]
    names = sorted(each.name for each in (tmp_path / "000004-step-3").iterdir())
    assert names == [folder.INDEX, *(folder.shard(rank) for rank in range(3))], "no word between threads is left"


def test_while_it_is_written_nothing_is_seen_and_the_next_save_waits(tmp_path):
    def fn():
        saver, go, write, order = AsyncSaver(tmp_path), threading.Event(), folder.write, []

        def slow(file, content):
            assert go.wait(60)
            order.append((file.name, len(folder.complete(tmp_path))))
            return write(file, content)

        folder.write = slow
        saver.save(shard(1), step=1)
        assert not folder.complete(tmp_path) and [*tmp_path.glob(".*-partial")], "training goes on"
        go.set()
        saver.save(shard(2), step=2)
        saver.wait()
        return order

    names = folder.shard(0), folder.INDEX
    expected = [(name, there) for there in (0, 1) for name in names]
    assert launch(fn, ranks=1)[0] == expected, "the second begins when the first is seen"
    assert len(folder.complete(tmp_path)) == 2


def test_an_error_of_a_writer_is_raised_on_all_ranks_at_the_next_call(tmp_path):
    def fn():
        rank, saver, write, told = dist.get_rank(), AsyncSaver(tmp_path), folder.write, []
        saver.save(shard(1), step=1)
        saver.wait()

        def full(file, content):
            if file.name == folder.shard(1):
                raise OSError(28, "No space left on device")
            return write(file, content)

        for again in (saver.wait, lambda: saver.save(shard(3), step=3)):
            folder.write = full
            saver.save(shard(2), step=2)
            try:
                again()
            except OSError as error:
                told.append(str(error))
            folder.write = write
        saver.save(shard(4), step=4)  # it goes on
        saver.wait()
        return rank, told

    (_, first), (_, second), (_, third) = launch(fn, ranks=3).results
    assert (
        first
        == [
            "rank 0: the last checkpoint was not written: rank 1 could not write its file: "
            "[Errno 28] No space left on device"
        ]
        * 2
    )
    assert second == ["rank 1: the last checkpoint was not written: [Errno 28] No space left on device"] * 2
    assert third == ["rank 2: the last checkpoint was not written: another rank says why"] * 2
    assert [each.name for each in folder.complete(tmp_path)] == ["000001-step-1", "000002-step-4"]
    assert not [*tmp_path.glob(".*-partial")]


def test_a_file_that_never_comes_is_told_by_rank_0(tmp_path):
    def fn():
        saver, write = AsyncSaver(tmp_path, patience_s=0.1), folder.write
        gone = threading.Event()

        def late(file, content):
            assert file.name != folder.shard(1) or gone.wait(60)
            return write(file, content)

        folder.write = late
        saver.save(shard(1), step=1)
        if dist.get_rank() == 1:
            while [*tmp_path.glob(".*-partial")]:  # rank 0 gives up, and tidies up
                gone.wait(0.01)
            gone.set()
        try:
            saver.wait()
        except OSError as error:
            return str(error)

    assert "written-00001 did not come: has that rank died?" in launch(fn, ranks=2)[0]
    assert asynchronous.load(tmp_path) is None


def test_a_rank_that_dies_while_it_writes_leaves_the_older_one_whole(tmp_path):
    def fn(who):
        saver, write = AsyncSaver(tmp_path), folder.write
        saver.save(shard(1), step=1)
        saver.wait()

        def die(file, content):
            stamp = write(file, content)
            if file.name == who:
                os.truncate(file, stamp.bytes // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return stamp

        folder.write = die
        saver.save(shard(2), step=2)
        saver.wait()

    for number, who in enumerate((folder.shard(0), folder.shard(1), folder.INDEX), 1):
        with pytest.raises(RankFailed, match="killed"):
            launch(fn, who, ranks=2)
        assert len(folder.complete(tmp_path)) == min(number, 3)
        found, index = asynchronous.load(tmp_path, rank=1)
        assert index["step"] == 1 and torch.equal(found["weights"]["a"], shard(1)["weights"]["a"])
