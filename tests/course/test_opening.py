"""Starting JupyterLab: what cannot work gives one line, and nothing in the terminal alarms."""

import importlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.application import ENV_CONFIG_DIRS
from jupyter_server.serverapp import ServerApp

from parallel_lab.course.opening import command, settle, trouble_with

TOOLS = Path(__file__).resolve().parents[2] / "tools"
HERE = Path("/course")


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
    line = command("8888", HERE)
    assert "--ServerApp.ip=127.0.0.1" in line
    assert "--ServerApp.port_retries=0" in line
    assert not [one for one in line if "token" in one or "password" in one]


def test_takes_the_forms_out_of_what_is_saved():
    """Beside the extensions that are installed, which the server then looks for by itself."""
    lab = ServerApp()
    lab.parse_command_line([word for word in command("8888", HERE) if "jpserver" in word])
    assert lab.jpserver_extensions == {"parallel_lab.course.saving": True}


def test_opens_the_learners_copy():
    assert "--LabApp.default_url=/lab/tree/work/notebooks/00_start_here.ipynb" in command("8888", HERE)


def test_a_link_finds_its_cell_and_nothing_asks_the_network(tmp_path, monkeypatch):
    """Each setting is one that the installed JupyterLab knows."""
    schemas = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    settle()
    settings = json.loads((tmp_path / "share/jupyter/lab/settings/overrides.json").read_text())
    assert settings["@jupyterlab/notebook-extension:tracker"] == {"windowingMode": "defer"}
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    for name, chosen in settings.items():
        known = json.loads((schemas / f"{name.replace(':', '/')}.json").read_text())["properties"]
        for key, value in chosen.items():
            assert value in [one["const"] for one in known[key].get("oneOf", ())] or known[key]["type"] == "boolean"


def test_kernels_say_what_brings_a_name_back(tmp_path, monkeypatch):
    """They read the file in this folder, and the extension that it names is one."""
    assert f"{sys.prefix}/etc/ipython" in ENV_CONFIG_DIRS
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    settle()
    settings = json.loads((tmp_path / "etc/ipython/ipython_kernel_config.json").read_text())
    [name] = settings["InteractiveShellApp"]["extensions"]
    assert callable(importlib.import_module(name).load_ipython_extension)


@pytest.mark.parametrize("folder, ipc", [("/short", True), (f"/{'l' * 60}", False)])
def test_kernels_listen_on_files_unless_the_path_of_these_is_too_long(monkeypatch, folder, ipc):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
    assert ("--KernelManager.transport=ipc" in command("8888", HERE)) is ipc


def test_a_terminal_keeps_the_path_on_which_plab_is(monkeypatch):
    """A login shell would read /etc/profile, which sets PATH anew on some systems."""
    monkeypatch.setenv("SHELL", "/bin/sh")
    lab = ServerApp()
    lab.parse_command_line([word for word in command("8888", HERE) if word.startswith("--ServerApp.terminado")])
    assert lab.terminado_settings == {"shell_command": "/bin/sh"}


@pytest.mark.parametrize("python", ["/bin/true", "/bin/false", "/bin/echo", "/nowhere"])
def test_what_is_no_python_gives_one_line(python):
    told = subprocess.run([TOOLS / "find_python.sh", python], capture_output=True, text=True)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr == f"PYTHON={python} is no Python that runs, or is older than 3.11\n"


def test_a_python_that_runs_is_taken():
    told = subprocess.run([TOOLS / "find_python.sh", sys.executable], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, f"{sys.executable}\n"), told.stderr
