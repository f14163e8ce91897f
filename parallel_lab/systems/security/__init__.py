"""Attacks on a training job that succeed, each beside the defense that stops it; on own processes only."""

from parallel_lab.systems.security import audit, messages, proxy, relay, rendezvous, roles, wire
from parallel_lab.systems.security.audit import Log
from parallel_lab.systems.security.messages import Channel, Refused, derive, keys_of, recv, send
from parallel_lab.systems.security.rendezvous import certificate_door, closed_store, open_store, stranger, token_door
from parallel_lab.systems.security.roles import Grant, Guard

__all__ = [
    "Channel",
    "Grant",
    "Guard",
    "Log",
    "Refused",
    "audit",
    "certificate_door",
    "closed_store",
    "derive",
    "keys_of",
    "messages",
    "open_store",
    "proxy",
    "recv",
    "relay",
    "rendezvous",
    "roles",
    "send",
    "stranger",
    "token_door",
    "wire",
]
