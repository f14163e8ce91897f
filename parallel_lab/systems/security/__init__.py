"""Attacks on a training job that succeed, each beside the defense that stops it; on own processes only."""

from parallel_lab.systems.security import (
    at_rest,
    audit,
    inversion,
    membership,
    messages,
    poisoned_job,
    private,
    proxy,
    relay,
    rendezvous,
    robust,
    roles,
    secrets,
    secure_sum,
    shamir,
    unsafe_files,
    wire,
)
from parallel_lab.systems.security.at_rest import KeyHolder, Tampered
from parallel_lab.systems.security.audit import Log
from parallel_lab.systems.security.messages import Channel, Refused, derive, keys_of, recv, send
from parallel_lab.systems.security.private import Privacy
from parallel_lab.systems.security.rendezvous import certificate_door, closed_store, open_store, stranger, token_door
from parallel_lab.systems.security.robust import coordinate_median, krum, trimmed_mean
from parallel_lab.systems.security.roles import Grant, Guard
from parallel_lab.systems.security.secrets import Secret, read_secret
from parallel_lab.systems.security.unsafe_files import Unsafe

__all__ = [
    "Channel",
    "Grant",
    "Guard",
    "KeyHolder",
    "Log",
    "Privacy",
    "Refused",
    "Secret",
    "Tampered",
    "Unsafe",
    "at_rest",
    "audit",
    "certificate_door",
    "closed_store",
    "coordinate_median",
    "derive",
    "inversion",
    "keys_of",
    "krum",
    "membership",
    "messages",
    "open_store",
    "poisoned_job",
    "private",
    "proxy",
    "read_secret",
    "recv",
    "relay",
    "rendezvous",
    "robust",
    "roles",
    "secrets",
    "secure_sum",
    "send",
    "shamir",
    "stranger",
    "token_door",
    "trimmed_mean",
    "unsafe_files",
    "wire",
]
