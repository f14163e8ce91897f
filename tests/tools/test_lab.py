"""Starting JupyterLab: a port that is taken or no port at all gives one line."""

import runpy
import socket
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "lab.py"))
trouble_with, command = TOOL["trouble_with"], TOOL["command"]


def test_a_free_port_is_no_trouble_and_a_taken_one_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = trouble_with(port)
        assert f"port {port} is taken" in line
        assert "make lab PORT=" in line
        assert "\n" not in line
    assert trouble_with(port) is None


@pytest.mark.parametrize("text", ["", "lab", "0", "65536", "-1"])
def test_what_is_no_port(text):
    assert "is no port" in trouble_with(text)


def test_listens_on_the_loopback_only_and_keeps_the_token():
    line = command("8888")
    assert "--ServerApp.ip=127.0.0.1" in line
    assert "--ServerApp.port_retries=0" in line
    assert not [one for one in line if "token" in one or "password" in one]
