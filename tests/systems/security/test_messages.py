"""Sealed messages against everything that somebody on the way can do, in one process and on real ranks."""

import zlib

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.security import Channel, Refused, derive, keys_of, recv, relay, send
from parallel_lab.systems.security.messages import OVERHEAD_BYTES

SECRET = b"a secret of the launcher"


def ends(binds=("sender", "receiver", "number"), key=None):
    key = key or derive(SECRET, "one pair")
    return Channel(key, 0, 1, binds), Channel(key, 1, 0, binds)


def test_keys_are_derived_as_the_standard_says():
    key = bytes.fromhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")  # RFC 5869, test case 3
    assert derive(b"\x0b" * 22, "") == key and derive(b"\x0b" * 22, "pair 0 1") != key


def test_both_ends_of_a_pair_have_its_key_and_nobody_else_has():
    keys = [keys_of(SECRET, rank, 4) for rank in range(4)]
    assert all(keys[one][other] == keys[other][one] for one in range(4) for other in keys[one])
    assert len({key for own in keys for key in own.values()}) == 6  # 4 * 3 / 2 pairs
    assert all(rank not in own and len(own) == 3 for rank, own in enumerate(keys))


@pytest.mark.parametrize("payload", [b"", b"x", bytes(1000)])
def test_a_message_arrives_and_is_44_bytes_longer(payload):
    here, there = ends()
    sealed = here.seal(payload)
    assert len(sealed) == len(payload) + 44 == len(payload) + OVERHEAD_BYTES and there.open(sealed) == payload


def test_every_changed_bit_and_every_cut_is_refused_and_the_right_one_is_still_taken():
    here, there = ends()
    sealed = here.seal(b"payload")
    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Refused):
            there.open(bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(Refused):
            there.open(sealed[:length])
    assert there.open(sealed) == b"payload"


def test_what_the_bytes_mean_is_bound():
    here, there = ends()
    sealed = here.seal(bytes(8), b"float32 (2,)")
    with pytest.raises(Refused):
        there.open(sealed, b"float64 (1,)")
    assert there.open(sealed, b"float32 (2,)") == bytes(8)


def test_each_attack_succeeds_until_the_protection_that_is_made_for_it():
    """Columns: checksum, code of the payload, and of the number, and of the names, a key for each pair."""
    expected = {
        "changed": "-----",
        "recomputed": "x----",
        "replayed": "xx---",
        "left out": "xx---",
        "swapped": "xx---",
        "reflected": "xxx--",
        "redirected": "xxx--",
        "forged": "xxxx-",
    }
    found = relay.matrix()
    assert {name: "".join("-x"[one] for one in row.values()) for name, row in found.items()} == expected
    assert all(list(row) == list(relay.PROTECTIONS) for row in found.values())


def test_the_last_message_may_be_lost_without_notice():
    """What no code can show: that something more was to come."""
    make = relay.PROTECTIONS["a key for each pair"]
    first, second, _ = relay.changed(make)
    assert relay.delivered(make(1, 1, 0), [first, second]) == list(relay.PAYLOADS[:2])


def on_ranks():
    """Tensors of several dtypes from rank 0 to rank 2, one that is sent as something else; and all past rank 1."""
    rank, keys = dist.get_rank(), keys_of(SECRET, dist.get_rank(), 3)
    tensors = [torch.randn(3, 5), torch.arange(4), torch.ones(2, dtype=torch.bfloat16), torch.tensor(1.5)]
    seen = []
    if rank == 0:
        to_2 = Channel(keys[2], 0, 2)
        for tensor in [*tensors, torch.ones(4)]:
            send(tensor, to_2)
    if rank == 2:
        from_0 = Channel(keys[0], 2, 0)
        for tensor in tensors:
            got = torch.zeros_like(tensor)
            recv(got, from_0)
            seen.append(torch.equal(got, tensor))
        other = torch.full((2, 2), 7.0)
        try:
            recv(other, from_0)
        except Refused:
            seen.append(other.unique().tolist())
    ways = [("pass", "a key for each pair"), ("change", "checksum"), ("replay", "code of the payload")]
    ways += [(attack, "a key for each pair") for attack in ("change", "replay", "swap")]
    return seen, [relay.through_rank_1(*way) for way in ways]


def test_on_three_ranks_with_one_of_them_on_the_way():
    run = launch(on_ranks, ranks=3)
    seen, (passed, checked, twice, changed, replayed, swapped) = run[2]
    assert seen == [True] * 4 + [[7.0]]
    steps = [f"gradient of step {step}" for step in range(3)]
    assert passed == steps and checked == steps[:2] and twice == [steps[0], *steps[:2]]
    assert changed == steps[:2] and replayed == steps[:2] and swapped == [steps[0]]


def test_a_checksum_finds_accidents_alone():
    """Whoever changes the payload makes the checksum anew; of a code he would need the key."""
    forged = b"another payload"
    assert relay.Checked(1, 0).open(forged + zlib.crc32(forged).to_bytes(4, "little")) == forged
    with pytest.raises(Refused):
        relay.Checked(1, 0).open(b"x" + relay.Checked(0, 1).seal(forged)[1:])
