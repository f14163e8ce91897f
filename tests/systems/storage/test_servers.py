"""Servers come up, do what they are there for, and are gone afterwards, however the process ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parallel_lab.systems.processes import ServerFailed, serving, wait_for
from parallel_lab.systems.storage import Local, servers

PATIENCE_S = 60
EVERYTHING = """
import contextlib, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a job in the background ignores it
from parallel_lab.systems.storage import servers
with contextlib.ExitStack() as stack:
    for name in servers.PROGRAMS:
        if not servers.missing(name):
            stack.enter_context(getattr(servers, name)())
            print(name, flush=True)
    print("up", flush=True)
    threading.Event().wait()
"""


def until(condition, what):
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"{what}: not after {PATIENCE_S} s"
        time.sleep(0.05)


def belonging_to(folder):
    """The processes that have the folder as that for temporary files."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process.name())
    return found


def mounts():
    return Path("/proc/self/mountinfo").read_text()


@contextlib.contextmanager
def running(folder):
    """A Python process that runs every server; it is ended with the block, whatever happens in it."""
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", EVERYTHING]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_nothing_is_left_when_the_process_ends(tmp_path, how):
    """With every server that can run here; SIGKILL and SIGTERM leave Python no time to clean up."""
    expected = [name for name in servers.PROGRAMS if not servers.missing(name)]
    if not expected:
        pytest.skip("; ".join(map(servers.missing, servers.PROGRAMS)))
    with running(tmp_path) as process:
        lines = iter(process.stdout.readline, "up\n")
        started = [line.strip() for line in lines if line or pytest.fail(process.stderr.read())]
        assert started == expected
        assert len(belonging_to(tmp_path)) > len(started)
        process.send_signal(how)
        process.wait(PATIENCE_S)
    until(lambda: not belonging_to(tmp_path), "the servers end")
    until(lambda: not os.listdir(tmp_path), "the folders are removed")
    assert str(tmp_path) not in mounts()


def test_the_mounts_are_seen_in_their_space_only(cluster, nodes):
    assert all(os.path.ismount(folder) for folder in [cluster.folder, *nodes])
    assert "mfs" not in mounts().lower() and "juicefs" not in mounts().lower()


def test_a_file_survives_the_loss_of_a_chunk_server_and_is_copied_again():
    """Goal 2 on three servers, and a file with goal 1 beside it, which is lost with its server."""
    if reason := servers.missing("moosefs"):
        pytest.skip(reason)
    with servers.moosefs() as cluster:
        store, data = Local(cluster.folder / "goal"), os.urandom(2**20)
        cluster.set_goal(cluster.folder / "goal", 2)
        store.put("two", data)
        file = cluster.folder / "goal" / "two"
        (places,) = cluster.copies(file)
        assert len(places) == 2
        cluster.set_goal(cluster.folder / "goal", 1)
        until(lambda: alone(cluster, store, places[0]), "a file with one copy lies on the server")
        cluster.set_goal(file, 2)
        until(lambda: len(cluster.copies(file)[0]) == 2, "its goal is 2 again")
        cluster.kill(places[0])
        store.forget("two")
        assert store.get("two") == data
        until(lambda: len(cluster.copies(file)[0]) == 2 and places[0] not in cluster.copies(file)[0], "a second copy")
        assert store.get("two") == data
        until(lambda: cluster.copies(cluster.folder / "goal" / "one") == [[]], "the only copy is lost")


def alone(cluster, store, address):
    """Writes a file with goal 1, and says whether its copy lies there."""
    store.put("one", b"one copy")
    return cluster.copies(cluster.folder / "goal" / "one") == [[address]]


def test_what_one_node_writes_the_other_reads(nodes):
    one, other = (Local(folder / "shared", sync=True) for folder in nodes)
    data = os.urandom(5 * 2**20)  # two objects: JuiceFS cuts files at 4 MiB
    one.put("a/b", data)
    assert other.get("a/b") == data
    other.put("a/b", b"anew")
    assert one.get("a/b") == b"anew"
    other.delete("a/b")
    assert one.list() == []


def test_a_server_that_ends_says_what_it_printed(tmp_path):
    gone, idle = ["sh", "-c", "echo the disk is full; exit 3"], ["sleep", "1000"]
    ended = pytest.raises(ServerFailed, match=r"sh ended with 3\nthe disk is full")
    with serving(gone, tmp_path / "log") as server, ended:
        wait_for(lambda: False, [server])
    with serving(idle, tmp_path / "log") as server, pytest.raises(ServerFailed, match="not up after 0 s"):
        wait_for(lambda: False, [server], patience_s=0.0)
    assert server.poll() is not None


def test_a_command_in_a_space_says_why_it_failed(cluster):
    with pytest.raises(ServerFailed, match="mfssetgoal"):
        cluster.set_goal(cluster.folder / "no such file", 2)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("moosefs", "apt-get install moosefs-master"),
        ("redis", "apt-get install redis-server"),
        ("memcached", "apt-get install memcached"),
        ("s3", "make storage"),
        ("juicefs", "make storage, and apt-get install redis-server"),
    ],
)
def test_what_is_not_installed_says_how_to_install_it(monkeypatch, name, command):
    monkeypatch.setattr(servers, "program_path", lambda program: None)
    assert command in servers.missing(name)
    with pytest.raises(ServerFailed, match=command), getattr(servers, name)():
        pass


def test_who_is_not_root_or_has_no_fuse_is_told_so(monkeypatch):
    monkeypatch.setattr(servers, "program_path", lambda program: program)
    monkeypatch.setattr("shutil.which", lambda program: program)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert servers.missing("moosefs") == "moosefs: only root makes namespaces and mounts in them"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert "no /dev/fuse" in servers.missing("juicefs")
    monkeypatch.setattr("shutil.which", lambda program: None)
    assert "apt-get install util-linux iproute2" in servers.missing("juicefs")
    assert servers.missing("redis") == ""
