"""A stranger at an open store, and at the doors: by token and by certificate; with somebody on the cable as well."""

import contextlib
import socket
import ssl
import threading

import pytest
import torch
import torch.distributed as dist
import trustme

from parallel_lab import compat, launch
from parallel_lab.systems.security import rendezvous
from parallel_lab.systems.security.proxy import Proxy, has_token
from parallel_lab.systems.security.rendezvous import (
    Meddler,
    certificate_door,
    client,
    closed_store,
    given_to,
    listens_at,
    open_store,
    quiet,
    stranger,
    take_seat,
    token_door,
    with_certificate,
    with_token,
)

NAME, ADDRESS = "address of rank 0", b"10.0.0.1:5000"
TOKEN = b"known to the ranks of this job"
FIRST, SECOND = b"version-1", b"version-2"


@pytest.fixture(scope="module")
def store():
    made = closed_store()
    made.set(NAME, ADDRESS)
    return made


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def test_an_open_store_listens_everywhere_and_lets_a_stranger_read_and_overwrite():
    store = open_store()
    assert store.host == "127.0.0.1" and listens_at(store.port) in ("::", "0.0.0.0")
    store.set(NAME, ADDRESS)
    seen = launch(stranger, store.port, keys=[NAME], patience_s=20.0, ranks=1).results[0]
    assert seen.joined and seen.values[NAME] == ADDRESS and seen.overwrote == [NAME]
    assert store.get(NAME) == b"by a stranger"
    assert compat.keys_of(store) in ([NAME], [])  # torch 2.11 does not list them


def test_a_store_given_its_socket_listens_on_the_loopback_alone(store):
    assert listens_at(store.port) == "127.0.0.1" and listens_at(1) == ""


def seat(port):
    """Rank 0 has the weights; who says that it is rank 1 gets them, and the real rank 1 comes too late."""
    group = take_seat(compat.PrefixStore("job", client(port)), dist.get_rank(), 2)
    return given_to(group, torch.arange(4.0) if dist.get_rank() == 0 else torch.zeros(4))


def test_a_stranger_takes_a_seat_and_is_sent_the_weights():
    """Nothing in the store or in gloo asks whether rank 1 is rank 1."""
    store = open_store()
    run = launch(seat, store.port, ranks=2)
    assert run[1].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_token_lets_ranks_in_and_a_stranger_not(store):
    with token_door(store.port, TOKEN) as door:
        assert not stranger(door.port).joined and not door.admitted
        with with_token(door.port, b"a guess") as own:
            assert not stranger(own).joined
        assert not door.admitted and any("token" in why for why in door.refused)
        with with_token(door.port, TOKEN) as own:
            assert client(own).get(NAME) == ADDRESS
        assert door.admitted == ["somebody with the token"]


def test_a_token_is_not_the_same_twice():
    """The answer of one connection does not open the next one: it is to another random number."""

    class Wire:
        def __init__(self, nonce):
            self.nonce, self.sent = nonce, b""

        def recv(self, count):
            taken, self.nonce = self.nonce[:count], self.nonce[count:]
            return taken

        def sendall(self, data):
            self.sent += data

    answers = []
    for nonce in (bytes(32), bytes(31) + b"1"):
        wire = Wire(nonce)
        has_token(TOKEN)(wire)
        answers.append(wire.sent)
    assert answers[0] != answers[1] and all(TOKEN not in each and len(each) == 32 for each in answers)


def test_after_the_token_somebody_on_the_cable_reads_and_changes_what_passes(store):
    meddler = Meddler(FIRST, SECOND)
    with (
        token_door(store.port, TOKEN) as door,
        Proxy(door.port, change=meddler) as cable,
        with_token(cable.port, TOKEN) as own,
    ):
        client(own).set("code, by token", FIRST.decode())
        assert store.get("code, by token") == SECOND
    assert meddler.heard


def test_a_certificate_lets_the_ranks_of_a_job_in_by_name(store, authority):
    with certificate_door(store.port, authority) as door:
        assert not stranger(door.port).joined  # speaks no TLS
        for name, why in ((None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"), ("rank-1.job-8.test", "no business here")):
            with with_certificate(door.port, authority, name) as own:
                assert not stranger(own).joined
            assert any(why in each for each in door.refused), door.refused
        assert not door.admitted
        with with_certificate(door.port, authority, "rank-1.job-7.test") as own:
            assert client(own).get(NAME) == ADDRESS
        assert door.admitted == ["rank-1.job-7.test"] and door.passed_bytes > 0


@contextlib.contextmanager
def answers_at_the_end(size):
    """A server that says nothing until it has all of `size` bytes."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            left = size
            while left:
                left -= len(connection.recv(2**16))
            connection.sendall(b"all")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_long_stream_one_way_passes_the_doors(authority):
    """A TLS server sends tickets that are no data: who waits for data behind them waits for ever."""
    with (
        answers_at_the_end(2**20) as port,
        certificate_door(port, authority) as door,
        with_certificate(door.port, authority, "rank-1.job-7.test") as own,
        socket.create_connection(("127.0.0.1", own)) as connection,
    ):
        connection.sendall(bytes(2**20))
        assert connection.recv(3) == b"all"
    assert not door.refused


def test_a_certificate_of_another_authority_is_refused_on_both_sides(store, authority):
    """Whose certificates it takes, each side chooses for itself: the door must not rely on its visitor's choice."""
    other, name = trustme.CA(), "rank-1.job-7.test"
    with certificate_door(store.port, authority) as door:
        for trusts, why in ((authority, "CERTIFICATE_VERIFY_FAILED"), (other, "UNKNOWN_CA")):
            with with_certificate(door.port, other, name, trusts) as own:
                assert not stranger(own).joined
            assert any(why in each for each in door.refused), door.refused
        assert not door.admitted
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert context.verify_mode == ssl.CERT_NONE  # the usual TLS of a server asks nobody: it takes CERT_REQUIRED


def test_under_tls_who_stands_on_the_cable_reads_nothing_and_a_change_ends_the_connection(store, authority):
    meddler = Meddler(FIRST, SECOND)
    with (
        certificate_door(store.port, authority) as door,
        Proxy(door.port, change=meddler) as cable,
        with_certificate(cable.port, authority, "rank-1.job-7.test") as own,
    ):
        rank = client(own)
        rank.set("code, by certificate", FIRST.decode())
        assert store.get("code, by certificate") == FIRST and not meddler.heard
        meddler.blind = True
        with quiet(), pytest.raises(RuntimeError):
            rank.set("changed blindly", "x")
            rank.get("changed blindly")
        assert not store.check(["changed blindly"])
    assert any("BAD_RECORD_MAC" in why for why in door.refused), door.refused
    assert rendezvous.Meddler(FIRST, SECOND)(b"a version-1") == b"a version-2"
