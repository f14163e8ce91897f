"""A folder of checkpoints: every changed bit is found, the newest whole one is taken, and nothing is removed."""

import os
import warnings
import zlib

import pytest
import torch
import torch.distributed.checkpoint as dcp

from parallel_lab.systems.resilience import Stamp, folder, latest, latest_whole
from parallel_lab.systems.resilience.checksum import damage, stamp_of


def content(step):
    return {"step": step, "values": torch.arange(3000.0) + step}


def save(directory, step, keep=5):
    with folder.writing(directory) as partial:
        stamps = {
            folder.shard(rank): tuple(folder.write(partial / folder.shard(rank), content(step))) for rank in (0, 1)
        }
        folder.write(partial / folder.INDEX, {"files": stamps, "step": step})
        return folder.publish(partial, step, keep)


def flip(file, byte, bit=0):
    with open(file, "r+b") as source:
        source.seek(byte)
        value = source.read(1)[0]
        source.seek(byte)
        source.write(bytes([value ^ (1 << bit)]))


def test_the_stamp_is_that_of_the_bytes_on_the_disk(tmp_path):
    stamp = folder.write(tmp_path / "f", content(1))
    assert stamp == stamp_of(tmp_path / "f") == Stamp(os.path.getsize(tmp_path / "f"), stamp.crc32)
    assert stamp.crc32 == zlib.crc32((tmp_path / "f").read_bytes())
    assert folder.read(tmp_path / "f", stamp)["step"] == 1
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2**20 + 5))  # more than a block
    assert stamp_of(large) == Stamp(2**20 + 5, zlib.crc32(large.read_bytes()))


def test_any_bit_of_a_shard_is_found_and_every_other_kind_of_damage(tmp_path):
    file, stamp = tmp_path / "f", folder.write(tmp_path / "f", content(1))
    for byte in range(0, stamp.bytes, 97):
        flip(file, byte, byte % 8)
        with pytest.raises(ValueError, match=r"f has the checksum .* it is damaged, though as long as it was"):
            folder.read(file, stamp)
        flip(file, byte, byte % 8)
    assert not damage(file, stamp)
    with pytest.raises(ValueError, match=r"bytes, and had .* it was cut off or changed"):
        folder.read(file, Stamp(stamp.bytes + 1))
    with pytest.raises(ValueError, match=r"f2 is missing from the checkpoint"):
        folder.read(tmp_path / "f2")
    os.truncate(file, 100)
    with pytest.raises(ValueError, match=r"f cannot be read \(.*\): it is damaged"):
        folder.read(file)


def test_any_bit_of_an_index_is_found_or_changes_nothing_that_is_read(tmp_path):
    """It stands under its records' own checksums; what lies between records is not read."""
    made = save(tmp_path, 1)
    expected, index = folder.read_index(made), made / folder.INDEX
    refused, size = 0, index.stat().st_size
    for byte in range(0, size, 7):
        flip(index, byte, byte % 8)
        try:
            assert folder.read_index(made) == expected, byte
        except ValueError as error:
            assert folder.INDEX in str(error)
            refused += 1
        flip(index, byte, byte % 8)
    assert refused > 50


def test_the_newest_whole_one_is_taken_and_the_damaged_stay(tmp_path):
    assert latest_whole(tmp_path) is None
    older, newer, newest = (save(tmp_path, step) for step in (1, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_whole(tmp_path) == newest == latest(tmp_path)
    flip(newest / folder.shard(1), 2000)
    (newer / folder.INDEX).write_bytes(b"no index")
    with pytest.warns(RuntimeWarning) as told:
        assert latest_whole(tmp_path) == older
    first, second = (str(each.message) for each in told)
    assert first.startswith(f"passing over 000003-step-3: {newest / folder.shard(1)} has the checksum")
    assert second.startswith(f"passing over 000002-step-2: {newer / folder.INDEX} cannot be read (BadZipFile")
    os.truncate(older / folder.INDEX, 300)
    with pytest.warns(RuntimeWarning) as told:
        assert latest_whole(tmp_path) is None
    assert len(told) == 3 and str(told[2].message).startswith("passing over 000001-step-1")
    assert len(folder.complete(tmp_path)) == 3
    with pytest.raises(ValueError, match="Bring it back, or move this checkpoint"):
        folder.verify(newest)
    folder.verify(newest, rank=0, ranks=2)  # the other file is another rank's to look at
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        folder.find(tmp_path / "nowhere")
    assert folder.find(newer) == newer


def test_what_was_saved_without_checksums_is_held_against_its_lengths(tmp_path):
    made = save(tmp_path, 1)
    sizes = [stamp.bytes for stamp in folder.stamps(folder.read_index(made)).values()]
    (made / folder.INDEX).unlink()
    folder.write(made / folder.INDEX, {"bytes": sizes})
    flip(made / folder.shard(0), 2000)
    assert latest_whole(tmp_path) == made, "an element that was changed in its place is not noticed"
    os.truncate(made / folder.shard(0), sizes[0] - 1)
    with pytest.warns(RuntimeWarning, match="cut off or changed"):
        assert latest_whole(tmp_path) is None


def test_torch_loads_a_flipped_bit_without_a_word_and_we_refuse_it(tmp_path):
    """A bit of an element of a weight, in torch's distributed checkpoint and in ours."""
    weight = torch.arange(3000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that there is one process alone
        dcp.save({"weight": weight}, checkpoint_id=tmp_path / "theirs", no_dist=True)
    (file,) = (tmp_path / "theirs").glob("*.distcp")
    flip(file, file.read_bytes().index(weight.numpy().tobytes()) + 4 * 1000 + 3, 6)  # the exponent of element 1000
    found = {"weight": torch.zeros(3000)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(found, checkpoint_id=tmp_path / "theirs", no_dist=True)
    assert (found["weight"] != weight).nonzero().tolist() == [[1000]] and found["weight"][1000] < 1e-30

    ours = tmp_path / "ours"
    stamp = folder.write(ours, {"weight": weight})
    flip(ours, ours.read_bytes().index(weight.numpy().tobytes()) + 4 * 1000 + 3, 6)
    assert folder.read(ours)["weight"][1000] < 1e-30, "without its checksum it would load as well"
    with pytest.raises(ValueError, match="has the checksum"):
        folder.read(ours, stamp)
