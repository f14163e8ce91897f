"""Encryption at rest: authenticated encryption of each shard, with the key that opens it kept outside the folder.

AES-GCM (NIST SP 800-38D) encrypts and authenticates at once. A sealed shard is a nonce of 12 bytes, the ciphertext, and
a tag of 16 bytes: 28 bytes more than the shard. What is bound as *associated data* is not encrypted, but the tag covers
it: here the run, the checkpoint's number, the shard's name and the number of shards. So a shard under another name, of
another checkpoint or run, cut short or changed in one bit is refused.

*Envelope encryption*: each checkpoint has a data key of its own, which encrypts the shards. The data key lies beside
them, itself encrypted ("wrapped") under a key that never lies in the folder. To change that outer key, 61 bytes are
written anew, and not the shards.

What this does not stop. Who holds the outer key, or reads the memory of a rank, reads everything. A whole older
checkpoint with its own data key is genuine, so a folder that was set back is found only by its number, which the reader
must know from elsewhere. A deleted shard is noticed and stays deleted. Sizes and names are in clear.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from parallel_lab.systems.disk import sync

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES  # of each sealed shard
MESSAGES_A_KEY = 2**32  # with random nonces of 96 bits, SP 800-38D, section 8.3
WRAPPED, ENDING = "data_key", ".sealed"


class Tampered(ValueError):
    """Sealed bytes are not what was sealed under this key for this place."""


def new_key() -> bytes:
    """A random key for AES-256."""
    return AESGCM.generate_key(8 * KEY_BYTES)


def seal(data: bytes, key: bytes, bound: bytes) -> bytes:
    """Nonce, ciphertext and tag; `bound` is authenticated with them, and has to be known to open them."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, bound)


def unseal(sealed: bytes, key: bytes, bound: bytes) -> bytes:
    """The data that `seal` was given.

    Raises:
        Tampered: another key, other bound data, or any bit of the sealed bytes is not as it was.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise Tampered(f"{bound.decode(errors='replace')}: this was not sealed under this key for this place") from None


def place(run: str, step: int, name: str, shards: int) -> bytes:
    """What is bound to a shard: the run, the checkpoint, the shard's name, and how many shards there are."""
    return json.dumps({"run": run, "step": step, "shard": name, "of": shards}).encode()


class KeyHolder:
    """Holds outer keys by number, outside the folder: a key service or a hardware module in production."""

    def __init__(self) -> None:
        self.keys = {1: new_key()}

    @property
    def newest(self) -> int:
        """The number of the key that wraps from now on."""
        return max(self.keys)

    def rotate(self) -> None:
        """Adds a new key; older ones still unwrap until they are taken out of `keys`."""
        self.keys[self.newest + 1] = new_key()

    def wrap(self, data_key: bytes, bound: bytes) -> bytes:
        """The number of the outer key, one byte, and the data key sealed under it."""
        return bytes([self.newest]) + seal(data_key, self.keys[self.newest], bound)

    def unwrap(self, wrapped: bytes, bound: bytes) -> bytes:
        """The data key.

        Raises:
            Tampered: the outer key is not held, or `wrapped` was changed.
        """
        if not wrapped or wrapped[0] not in self.keys:
            raise Tampered("the outer key of this checkpoint is not held here")
        return unseal(wrapped[1:], self.keys[wrapped[0]], bound)


def save(folder: str | os.PathLike, shards: Mapping[str, bytes], holder: KeyHolder, *, run: str, step: int) -> None:
    """Writes each shard sealed under a data key of this checkpoint, and beside them that key, wrapped."""
    folder, data_key = Path(folder), new_key()
    folder.mkdir(parents=True)
    for name, data in shards.items():
        _write(folder / (name + ENDING), seal(data, data_key, place(run, step, name, len(shards))))
    _write(folder / WRAPPED, holder.wrap(data_key, place(run, step, WRAPPED, len(shards))))
    sync(folder)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync(path)


def load(folder: str | os.PathLike, holder: KeyHolder, *, run: str, step: int) -> dict[str, bytes]:
    """The shards of checkpoint `step` of the run of this name.

    Raises:
        Tampered: a shard or the data key is missing, was changed, renamed, or is of another checkpoint or run.
    """
    folder = Path(folder)
    files = {path.name.removesuffix(ENDING): path for path in sorted(folder.glob("*" + ENDING))}
    wrapped = (folder / WRAPPED).read_bytes() if (folder / WRAPPED).exists() else b""
    bound = {name: place(run, step, name, len(files)) for name in (WRAPPED, *files)}
    data_key = holder.unwrap(wrapped, bound[WRAPPED])
    return {name: unseal(path.read_bytes(), data_key, bound[name]) for name, path in files.items()}


def rewrap(folder: str | os.PathLike, holder: KeyHolder, *, run: str, step: int) -> None:
    """Wraps the data key of a checkpoint under the newest outer key; the shards stay as they are."""
    folder = Path(folder)
    bound = place(run, step, WRAPPED, len(list(folder.glob("*" + ENDING))))
    fresh = folder / (WRAPPED + ".new")
    _write(fresh, holder.wrap(holder.unwrap((folder / WRAPPED).read_bytes(), bound), bound))
    fresh.replace(folder / WRAPPED)
    sync(folder)


# The attacks ---------------------------------------------------------------------------------------------------------


def encrypt_only(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """AES in counter mode: encrypted and not authenticated. The same call decrypts."""
    return Cipher(algorithms.AES(key), modes.CTR(nonce + b"\0\0\0\2")).encryptor().update(data)


def flip_bit(data: bytes, byte: int, bit: int) -> bytes:
    """The bytes with one bit flipped. In counter mode the same bit of the plaintext flips, without the key."""
    changed = bytearray(data)
    changed[byte] ^= 1 << bit
    return bytes(changed)


def with_checksum(data: bytes) -> bytes:
    """SHA-256 and the data: it finds accidents. Who changes the data computes a new one, for it needs no key."""
    return hashlib.sha256(data).digest() + data


def checksum_holds(data: bytes) -> bool:
    """Whether the checksum in front of the data is theirs."""
    return hashlib.sha256(data[32:]).digest() == data[:32]


def with_nonce(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """As `seal`, with the caller's nonce: what a counter that starts anew after a restart comes to."""
    return nonce + AESGCM(key).encrypt(nonce, data, None)


def read_by_reuse(sealed: bytes, other: bytes, known: bytes) -> bytes:
    """The plaintext of `sealed` without the key, where `other`, of the same key and nonce, has the `known` plaintext.

    Both were XORed with the same stream of the counter mode, so the XOR of the ciphertexts is that of the plaintexts.
    """
    own, theirs = (each[NONCE_BYTES:-TAG_BYTES] for each in (sealed, other))
    return bytes(a ^ b ^ c for a, b, c in zip(own, theirs, known, strict=False))


def collision_odds(messages: int, nonce_bits: int = 8 * NONCE_BYTES) -> float:
    """At most how likely two of so many random nonces are equal: messages (messages - 1) / 2^(bits + 1)."""
    return min(1.0, messages * (messages - 1) / 2 ** (nonce_bits + 1))
