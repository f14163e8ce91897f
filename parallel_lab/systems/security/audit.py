"""An audit log that shows tampering: each entry has the hash of the one before, and a signed head stands elsewhere.

In a plain file whoever can write changes a line, and nothing shows it. In a chain of hashes (Haber and Stornetta 1991,
"How to time-stamp a digital document", have the linking; Schneier and Kelsey 1999 the log) an entry that is changed,
taken out or put in no longer fits the next one. But the hashes need no key: whoever can write makes the chain anew from
there on (`rewritten`), or cuts its end off, and it fits.

So the head, which is the number of entries and the last hash, is signed from time to time (Ed25519) and kept where the
writer of the log cannot write. What lies below the newest signed head cannot be changed without notice. What is newer
can: that is the window, at most the time between two heads.

`verify` reads all entries. A Merkle tree in place of the chain proves one of them with log2(entries) hashes
(Certificate Transparency, RFC 6962).

What this does not stop: a log tells of tampering and prevents none. An event that was never written is not missed. Who
takes over the writer writes lies from then on, and signs them where the key is at hand. And who keeps two logs can show
each auditor another one, unless auditors compare heads.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from parallel_lab.systems.disk import sync

START = "0" * 64  # in place of a hash before the first entry


def digest(entry: dict) -> str:
    """The hash of all that an entry says but its own hash."""
    said = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def linked(entry: dict, number: int, before: str) -> dict:
    """The entry with its number, the hash of the one before, and its own."""
    one = entry | {"number": number, "before": before}
    return one | {"hash": digest(one)}


def chained(entries: Sequence[dict]) -> list[dict]:
    """The entries with their numbers and hashes, from the first on: what a writer makes, and an attacker as well."""
    made: list[dict] = []
    for number, entry in enumerate(entries):
        made.append(linked(entry, number, made[-1]["hash"] if made else START))
    return made


@dataclass(frozen=True)
class Head:
    """How long the log was, and its last hash; with the signature of the one who keeps watch."""

    count: int
    hash: str
    signature: bytes

    @staticmethod
    def said(count: int, hash: str) -> bytes:
        """What is signed."""
        return f"audit log, {count} entries, {hash}".encode()


@dataclass
class Log:
    """A log in a file, a line of JSON an entry. One process writes.

    Attributes:
        path: Of the file; entries that it has are gone on with.
    """

    path: Path

    def __post_init__(self) -> None:
        entries = read(self.path)
        self.count, self.last = len(entries), entries[-1]["hash"] if entries else START

    def append(self, who: str, what: str, allowed: bool = True) -> dict:
        """Writes down who asked for what, and brings it to the disk before anything is done."""
        entry = {"at_s": round(time.time(), 3), "who": who, "what": what, "allowed": allowed}
        entry = linked(entry, self.count, self.last)
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")
        sync(self.path)
        self.count, self.last = self.count + 1, entry["hash"]
        return entry

    def sign(self, key: Ed25519PrivateKey) -> Head:
        """The head, signed. The key belongs to another machine or a module that only signs; here both are at hand."""
        return Head(self.count, self.last, key.sign(Head.said(self.count, self.last)))


def read(path: Path) -> list[dict]:
    """The entries of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def verify(entries: Sequence[dict], head: Head | None = None, key: Ed25519PublicKey | None = None) -> list[str]:
    """What is wrong with a log, in words; empty where nothing is.

    Args:
        entries: As they were read.
        head: The newest signed head that is known, from elsewhere.
        key: That its signature is checked with.
    """
    found, before = [], START
    for number, entry in enumerate(entries):
        if digest(entry) != entry["hash"]:
            found.append(f"entry {number} is not what was hashed")
        if entry["before"] != before or entry["number"] != number:
            found.append(f"entry {number} does not follow the one before it")
        before = entry["hash"]
    return found + (_against(entries, head, key) if head else [])


def _against(entries: Sequence[dict], head: Head, key: Ed25519PublicKey | None) -> list[str]:
    if key is None:
        return ["there is a head, and no key to check it with"]
    try:
        key.verify(head.signature, Head.said(head.count, head.hash))
    except InvalidSignature:
        return ["the head is not signed with this key"]
    if len(entries) < head.count:
        return [f"{head.count} entries were signed, and {len(entries)} are left"]
    last = entries[head.count - 1]["hash"] if head.count else START
    return [] if last == head.hash else [f"the first {head.count} entries are not those that were signed"]


# What somebody does who can write to the file.


def edited(entries: Sequence[dict], number: int, **changes: object) -> list[dict]:
    """One entry says something else."""
    return [entry | changes if place == number else entry for place, entry in enumerate(entries)]


def removed(entries: Sequence[dict], number: int) -> list[dict]:
    """One entry is gone."""
    return [entry for place, entry in enumerate(entries) if place != number]


def truncated(entries: Sequence[dict], count: int) -> list[dict]:
    """Only the first `count` entries are left."""
    return list(entries[:count])


def rewritten(entries: Sequence[dict], number: int, **changes: object) -> list[dict]:
    """One entry says something else, and the hashes are made anew from there on."""
    return chained(edited(entries, number, **changes))


def matrix(entries: Sequence[dict], head: Head, key: Ed25519PublicKey) -> dict[str, dict[str, bool]]:
    """By attack and kind of log, whether it goes unnoticed. A plain file has nothing to be held against.

    The signed head must be older than the last entry.
    """
    attacks = {
        "an entry edited": edited(entries, 1, who="somebody else"),
        "an entry removed": removed(entries, 1),
        "the end cut off": truncated(entries, head.count - 1),
        "rewritten from there on": rewritten(entries, 1, who="somebody else"),
        "rewritten after the head": rewritten(entries, head.count, who="somebody else"),
    }
    return {
        name: {"plain file": True, "chain": not verify(log), "chain, signed head": not verify(log, head, key)}
        for name, log in attacks.items()
    }
