"""A name that is not there any more: the kernel says what brings it back."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from parallel_lab.course.after_restart import load_ipython_extension


@pytest.fixture
def said(capsys, tmp_path):
    shell = InteractiveShell(ipython_dir=str(tmp_path))
    load_ipython_extension(shell)

    def run(code):
        done = shell.run_cell(code)
        return capsys.readouterr().out, done

    yield run
    shell.restore_sys_module_state()


def test_a_missing_name_is_followed_by_the_way_to_have_it_again(said):
    for code in ('check("ring_shift", ring_shift)', "def f():\n    return check()\nf()"):
        shown, done = said(code)
        assert isinstance(done.error_in_exec, NameError)
        assert "NameError" in shown and "Traceback (most recent call last)" in shown, "the traceback is there as ever"
        assert "No cell that this kernel has run defines `check`. If the kernel was started again: Run >" in shown


@pytest.mark.parametrize("code", ["1 / 0", "def f():\n    print(a)\n    a = 1\nf()", "print(1)"])
def test_nothing_else_is(said, code):
    assert "started again" not in said(code)[0]
