"""A listener on the cable between two hosts hears an all-reduce in clear, and nothing of it below WireGuard."""

import os
import subprocess
import sys

import psutil
import pytest

from parallel_lab.systems import processes
from parallel_lab.systems.security import wire


@pytest.fixture(scope="module")
def heard():
    if why := wire.missing():
        pytest.skip(why)
    return wire.listen(tensor_bytes=2**18)


def test_the_cable_carries_the_gradient_in_clear(heard):
    cable = heard["cable"]
    assert cable.in_clear > 0 and cable.dropped == 0 and len(cable.times_s) == 2
    # Of two ranks each sends its half and then the sum's other half: as many bytes as the tensor has, twice over.
    assert cable.bytes > 2 * 2 * 2**18 and cable.packets > cable.in_clear


def test_below_wireguard_the_listener_finds_nothing_and_still_sees_how_much(heard):
    if why := wire.missing_wireguard():
        pytest.skip(why)
    tunnel = heard["WireGuard"]
    assert tunnel.in_clear == 0 and tunnel.dropped == 0
    assert tunnel.bytes > 2 * 2 * 2**18 * (wire.overhead() - 0.01)  # the amount is no secret
    assert wire.overhead() == pytest.approx(1480 / 1420)


HOSTS = """
from parallel_lab.systems import hosts
with hosts.two_hosts() as both:
    print(*(host.space.first for host in both), flush=True)
    input()
"""


def test_nothing_is_left_of_the_hosts_of_a_process_that_is_killed():
    if why := wire.missing():
        pytest.skip(why)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOSTS], stdin=pipe, stdout=pipe) as process:
        firsts = [psutil.Process(int(each)) for each in process.stdout.readline().split()]
        assert len(firsts) == 2 and all(each.is_running() for each in firsts)
        process.kill()
    # With them the kernel ends the networks, and the cable. Where nobody waits for orphans, a zombie stays.
    processes.wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in firsts), [])


def test_the_wheel_of_torch_is_built_without_gloos_tls(monkeypatch):
    monkeypatch.delenv(wire.TRANSPORT, raising=False)
    assert not wire.gloo_has_tls() and wire.TRANSPORT not in os.environ


def test_without_the_programs_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setattr(wire.shutil, "which", lambda name: None)
    assert wire.missing_wireguard().endswith("apt-get install wireguard-go wireguard-tools")


def test_a_rank_that_fails_is_told_with_what_it_printed(monkeypatch):
    if why := wire.missing():
        pytest.skip(why)
    monkeypatch.setattr(wire, "missing_wireguard", lambda: "not here")
    monkeypatch.setattr(wire, "RANK", ("sh", "-c", "echo no rank; exit 3"))
    with pytest.raises(processes.ServerFailed, match="no rank"):
        wire.listen()
