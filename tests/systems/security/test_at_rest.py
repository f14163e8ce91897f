"""Sealed shards: any bit, name, checkpoint or length that is not as it was is refused; what encryption alone allows."""

import math
import os
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from parallel_lab.systems.security import KeyHolder, Tampered, at_rest

SHARDS = {"rank0": os.urandom(300), "rank1": os.urandom(200), "rank2": b""}


@pytest.fixture
def saved(tmp_path):
    holder = KeyHolder()
    at_rest.save(tmp_path / "step7", SHARDS, holder, run="a", step=7)
    return tmp_path / "step7", holder


def test_sealed_shards_hold_nothing_in_clear_and_come_back(saved):
    folder, holder = saved
    assert at_rest.load(folder, holder, run="a", step=7) == SHARDS
    for name, data in SHARDS.items():
        sealed = (folder / (name + at_rest.ENDING)).read_bytes()
        assert len(sealed) == len(data) + at_rest.OVERHEAD_BYTES and (not data or data not in sealed)


def test_a_changed_renamed_shortened_or_missing_shard_is_refused(saved):
    folder, holder = saved
    one, other, key = (folder / name for name in ("rank0.sealed", "rank1.sealed", at_rest.WRAPPED))
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for byte, bit in ((0, 0), (12, 3), (100, 7), (len(kept[one]) - 1, 1)):
        one.write_bytes(at_rest.flip_bit(kept[one], byte, bit))
        _refused(folder, holder)
    for cut in (0, 5, 27, 100):
        one.write_bytes(kept[one][:cut])
        _refused(folder, holder)
    one.write_bytes(kept[other]), other.write_bytes(kept[one])
    _refused(folder, holder)
    one.write_bytes(kept[one]), other.unlink()
    _refused(folder, holder)
    other.write_bytes(kept[other])
    key.write_bytes(at_rest.flip_bit(kept[key], 20, 0))
    _refused(folder, holder)
    key.unlink()
    _refused(folder, holder)
    key.write_bytes(kept[key])
    assert at_rest.load(folder, holder, run="a", step=7) == SHARDS
    _refused(folder, holder, step=8)
    _refused(folder, KeyHolder())


def _refused(folder, holder, run="a", step=7):
    with pytest.raises(Tampered):
        at_rest.load(folder, holder, run=run, step=step)


def test_a_shard_of_another_checkpoint_is_refused(saved, tmp_path):
    folder, holder = saved
    at_rest.save(tmp_path / "step8", SHARDS, holder, run="a", step=8)
    (folder / "rank0.sealed").write_bytes((tmp_path / "step8" / "rank0.sealed").read_bytes())
    _refused(folder, holder)


def test_a_whole_checkpoint_of_another_run_is_refused(saved):
    """It has the step, the names, the number of shards and the outer key of the right one."""
    folder, holder = saved
    _refused(folder, holder, run="b")
    with pytest.raises(Tampered):
        at_rest.rewrap(folder, holder, run="b", step=7)
    assert at_rest.load(folder, holder, run="a", step=7) == SHARDS


def test_a_folder_that_was_set_back_is_genuine_and_only_its_number_tells(saved):
    folder, holder = saved
    assert at_rest.load(folder, holder, run="a", step=7) == SHARDS, "an old checkpoint is what it was"
    _refused(folder, holder, step=9)


def test_a_new_outer_key_leaves_the_shards_as_they_are(saved):
    folder, holder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    holder.rotate()
    at_rest.rewrap(folder, holder, run="a", step=7)
    del holder.keys[1]
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert at_rest.load(folder, holder, run="a", step=7) == SHARDS
    assert {name for name in before if before[name] != after[name]} == {at_rest.WRAPPED}
    assert len(after[at_rest.WRAPPED]) == 61, "the size that the head of the module gives"


def test_encryption_alone_lets_anybody_flip_a_weight():
    key, nonce, weights = at_rest.new_key(), bytes(12), struct.pack("<3f", 1.5, -2.0, 0.25)
    encrypted = at_rest.encrypt_only(weights, key, nonce)
    assert encrypted == AESGCM(key).encrypt(nonce, weights, None)[:-16], "GCM encrypts in the same counter mode"
    flipped = at_rest.encrypt_only(at_rest.flip_bit(encrypted, 3, 7), key, nonce)
    assert struct.unpack("<3f", flipped) == (-1.5, -2.0, 0.25)


def test_a_checksum_is_no_signature():
    data = at_rest.with_checksum(b"honest weights")
    assert at_rest.checksum_holds(data) and not at_rest.checksum_holds(at_rest.flip_bit(data, 40, 0))
    assert at_rest.checksum_holds(at_rest.with_checksum(b"forged weights")), "whoever changes it computes a new one"


def test_a_nonce_used_twice_gives_the_plaintext_away():
    key, nonce, secret = at_rest.new_key(), os.urandom(12), os.urandom(64)
    known = bytes(64)  # the moments of the optimizer at step 0
    sealed, other = (at_rest.with_nonce(each, key, nonce) for each in (secret, known))
    assert at_rest.read_by_reuse(sealed, other, known) == secret
    fresh = at_rest.seal(secret, key, b"")
    assert at_rest.read_by_reuse(fresh, other, known) != secret


def test_collision_odds():
    assert at_rest.collision_odds(at_rest.MESSAGES_A_KEY) == pytest.approx(2.0**-33, rel=1e-9)
    assert at_rest.collision_odds(1) == 0 and at_rest.collision_odds(2**60) == 1
    days = 365
    exact = 1 - math.prod((days - k) / days for k in range(10))
    assert exact <= at_rest.collision_odds(10, nonce_bits=0) and 10 * 9 / 2 / days >= exact
