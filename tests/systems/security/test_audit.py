"""An audit log: what a plain file, a chain and a chain with a signed head show of who can write to it."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parallel_lab.systems.security import Log, audit

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key()


@pytest.fixture
def signed(tmp_path):
    """Six entries, of which four were there when the head was signed."""
    log = Log(tmp_path / "log")
    for number in range(4):
        log.append(f"rank {number}", "read data")
    head = log.sign(KEY)
    log = Log(tmp_path / "log")  # a later process goes on
    for number in range(2):
        log.append(f"rank {number}", "create runs/a")
    return audit.read(tmp_path / "log"), head


def test_a_log_that_nobody_touched_is_right(signed, tmp_path):
    entries, head = signed
    assert len(entries) == 6 and not audit.verify(entries, head, PUBLIC)
    assert audit.chained(entries) == entries
    empty = Log(tmp_path / "empty")
    assert not audit.verify([], empty.sign(KEY), PUBLIC)


def test_what_each_kind_of_log_shows(signed):
    """Marked is what goes unnoticed: in a plain file, in a chain, in a chain with a signed head."""
    expected = {
        "an entry edited": "x--",
        "an entry removed": "x--",
        "the end cut off": "xx-",
        "rewritten from there on": "xx-",
        "rewritten after the head": "xxx",
    }
    entries, head = signed
    found = audit.matrix(entries, head, PUBLIC)
    assert {name: "".join("-x"[one] for one in row.values()) for name, row in found.items()} == expected


@pytest.mark.parametrize("number", range(6))
def test_every_field_of_every_entry_is_covered(signed, number):
    entries, _ = signed
    for changes in ({"who": "x"}, {"what": "x"}, {"allowed": False}, {"at_s": 0.0}, {"more": 1}, {"hash": "0" * 64}):
        assert audit.verify(audit.edited(entries, number, **changes))
    if number < 5:
        assert audit.verify(audit.removed(entries, number))
        assert audit.verify([*entries[:number], entries[number + 1], entries[number], *entries[number + 2 :]])


def test_what_is_found_is_said_in_words(signed):
    entries, head = signed
    assert audit.verify(audit.edited(entries, 1, who="x")) == ["entry 1 is not what was hashed"]
    assert audit.verify(audit.truncated(entries, 3), head, PUBLIC) == ["4 entries were signed, and 3 are left"]
    told = audit.verify(audit.rewritten(entries, 0, who="x"), head, PUBLIC)
    assert told == ["the first 4 entries are not those that were signed"]
    other = Ed25519PrivateKey.generate().public_key()
    assert audit.verify(entries, head, other) == ["the head is not signed with this key"]
    assert audit.verify(entries, head) == ["there is a head, and no key to check it with"]
    forged = audit.Head(3, entries[2]["hash"], head.signature)
    assert audit.verify(audit.truncated(entries, 3), forged, PUBLIC) == ["the head is not signed with this key"]
