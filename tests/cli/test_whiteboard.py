"""`plab whiteboard`: what is written as an argument, in a file or on the input; 1 where it cannot be carried out."""

import click
import pytest
from click.testing import CliRunner

from parallel_lab.cli import late, main, whiteboard


def plab(*arguments, said=""):
    return CliRunner().invoke(main, ["whiteboard", *arguments], input=said)


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.delenv("PARALLEL_LAB_LANGUAGE", raising=False)


def test_help_has_an_example_of_each_kind():
    output = " ".join(plab("--help").output.split())
    assert "0F0 0F1 0B0 0B1 / 1F0 1B0 1F1 1B1" in output and "llama3-8b on 64 h100-ib" in output


def test_a_schedule_is_answered():
    result = plab("0F0 0B0 / 1F0 1B0")
    assert result.exit_code == 0 and "take 6 units of time" in result.output
    result = plab("0F0 0B0 / 1B0 1F0", "--language", "zh")
    assert result.exit_code == 1 and "无法执行" in result.output and "never finish" in result.output


def test_what_is_piped_in_and_what_stands_in_a_file(tmp_path):
    assert "take 6 units" in plab(said="0F0 0B0\n1F0 1B0\n").output
    file = tmp_path / "mine.py"
    file.write_text("rank * 10\n")
    result = plab("--file", str(file), "--ranks", "2")
    assert result.exit_code == 0 and "10" in result.output


def test_what_is_typed_ends_with_an_empty_line(monkeypatch):
    typed = iter(["0F0 0B0", "1F0 1B0", ""])
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(typed))
    assert whiteboard._lines("zh") == "0F0 0B0\n1F0 1B0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "The board is empty"),
        (("rank", "--ranks", "9"), "1 to 8 ranks, not 9"),
        (("rank", "--link", "fast"), "expected LATENCY,BANDWIDTH"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    result = plab(*arguments)
    assert result.exit_code == 1 and said in result.output and result.output.count("\n") == 1


def test_ctrl_c_ends_it(monkeypatch):
    monkeypatch.setattr(late, "answered", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert plab("rank").exit_code == 130
