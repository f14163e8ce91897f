"""`plab plan`: the recommendation with reasons, runners-up and flags; wrong input in one sentence; Ctrl-C."""

import io
import json
import re
import sys

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main, plan

SMALL = ["plan", "--model", "llama3-8b", "--cluster", "h100-ib", "--gpus", "8", "--batch", "16", "--seq", "2048"]


def plab(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_recommends_with_reasons_runners_up_and_flags():
    result = plab(*SMALL, "--tokens", "15T")
    assert result.exit_code == 0, result.output
    for said in (
        "llama3-8b, 8.0 G parameters, on 8 H100",
        "best of this model of costs: ",
        "MFU",
        "15 T tokens: ",
        "M$",
        "with one choice changed",
        "runs within 5 %",
        "families of schemes",
        "flags for torchtitan",
        "flags for Megatron-LM",
        "flags for DeepSpeed",
        "-m parallel_lab.hybrid.train --pp",
    ):
        assert said in result.output


def test_json_says_the_same():
    found = json.loads(plab(*SMALL, "--json", "--tokens", "1B").output)
    assert found["best"]["scheme"]["dp"] * found["best"]["scheme"]["cp"] >= 1
    assert found["best"]["step_s"] == pytest.approx(sum(found["best"]["step"].values()))
    assert found["best"]["days"] > 0 and set(found["flags"]) == set(plan.FILES)


def test_why_is_a_tree_and_an_unknown_part_is_refused():
    assert plab(*SMALL, "--why", "step").output.startswith("step: ")
    assert "weights" in plab(*SMALL, "--why", "memory").output
    assert "there are step" in plab(*SMALL, "--why", "nothing").output


def test_a_framework_gets_only_what_it_runs():
    said = plab(*SMALL, "--for", "megatron").output
    assert "of what megatron runs" in said and "has no schedule" not in said
    assert "does not run there" not in plab(*SMALL, "--for", "deepspeed").output


def test_flags_go_into_files(tmp_path):
    result = plab(*SMALL, "--out", str(tmp_path / "flags"))
    assert "flags for" not in result.stdout and result.exit_code == 0
    assert sorted(file.name for file in (tmp_path / "flags").iterdir()) == sorted(plan.FILES.values())
    json.loads((tmp_path / "flags" / "deepspeed.json").read_text())


def test_sensitivity_plans_again():
    said = plab(*SMALL, "--sensitivity").output
    assert "network between nodes x 2" in said and "old scheme" in said


def test_names_are_listed():
    said = plab("plan", "--list").output
    assert "llama3-70b" in said and "h100-ib: 1,024 H100" in said
    assert re.search("h100-pcie: .*made up, for comparison", said)


WRONG = [
    ("--model llama3-9b --cluster h100-ib", r"no model 'llama3-9b'.*llama3-8b"),
    ("--model llama3-8b --cluster h100", r"no cluster 'h100'.*h100-ib"),
    ("--model llama3-8b --cluster h100-ib --gpus 13", r"8 accelerators in a node.*the nearest are 8 and 16"),
    ("--model llama3-8b", r"give --model and --cluster"),
    ("--model llama3-8b --cluster a100-selene --precision fp8", r"A100-80 has no fp8 products"),
    ("--model llama3-8b --cluster h100-ib --tokens lots", r"expected a number above 0"),
    ("--model llama3-8b --cluster h100-ib --tokens 1.2.3", r"expected a number above 0"),
    ("--model llama3-405b --cluster h100-ib --gpus 8 --batch 8", r"least memory found is .*--gpus"),
    ("--model llama3-8b --cluster h100-ib --gpus 0", r"0 is not in the range"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_wrong_input_is_one_sentence(line, said):
    result = plab("plan", *line.split())
    assert result.exit_code in (1, 2) and "Traceback" not in result.output
    assert sum(row.startswith("Error") for row in result.output.splitlines()) == 1
    assert re.search(said, result.output), result.output


def test_ctrl_c_ends_it(monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "search", pressed)
    result = plab(*SMALL)
    assert (result.exit_code, result.output) == (130, "stopped\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_on_a_terminal_and_goes_away(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(plan, "BAR_AFTER_S", 0.0)
    with plan.bar("searching") as told:
        told(3, 10, float("inf"))
        told(4, 10, 2.0)
    assert "searching: 3 of at most 10, none fits yet" in shown.getvalue()
    assert "best step so far 2.00 s" in shown.getvalue() and shown.getvalue().endswith("\r")
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    with plan.bar("searching") as told:
        told(3, 10, 1.0)
    assert not quiet.getvalue()
