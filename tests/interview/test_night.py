"""The night before: the page, its formulas, its links, and what prints it."""

import os
import re
import shutil
import stat

import pytest

from parallel_lab.course.questions import ask, index
from parallel_lab.interview import printing
from parallel_lab.interview.night import markdown, night_page, write_night
from parallel_lab.interview.printing import NoBrowser, find_browser, print_pdf
from parallel_lab.interview.stored import chapters, first_page


@pytest.fixture(scope="module")
def shown():
    return night_page()


def test_all_first_pages_stand_on_it_with_their_pictures(shown):
    assert len(chapters()) >= 24
    for chapter in chapters():
        assert f'<article id="chapter-{chapter}"' in shown and f'<a href="#chapter-{chapter}">' in shown
    count = sum(not isinstance(one, str) for chapter in chapters() for one in first_page(chapter)[1])
    pictures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)"', shown)
    assert len(pictures) == count and all(pictures)


def test_it_needs_no_network_and_no_script(shown):
    assert "<script" not in shown and "@import" not in shown
    assert all(one.startswith(("data:", "#")) for one in re.findall(r'(?:src|href)="([^"]*)"', shown))
    assert {one[1:] for one in re.findall(r'href="(#[^"]*)"', shown)} <= set(re.findall(r'id="([^"]*)"', shown))


def test_every_formula_is_set(shown):
    words = re.sub(r"<style.*?</style>|<code>.*?</code>|<pre>.*?</pre>|data:[^\"]*", "", shown, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", "", words)
    assert shown.count("<math") > 150
    assert not re.search(r"\\[a-zA-Z]+|xMATHx|\$", text), re.search(r".{30}(\\[a-zA-Z]+|xMATHx|\$).{30}", text)


def test_code_keeps_its_dollars_and_sections_their_numbers():
    said = markdown(
        "`$x$` costs $2x$, see [3](#3-The-bubble), [here](#h), [chapter 02](02_collectives.ipynb) and\n\n$$y$$"
    )
    assert "<code>$x$</code>" in said and said.count("<math") == 2 and 'display="block"' in said
    assert "§3" in said and "here" in said and 'href="#chapter-02"' in said and "#3-The" not in said


def test_answers_are_added_in_either_language():
    chinese = night_page(cards=True, language="zh")
    assert '<html lang="zh">' in chinese and "30 秒回答" in chinese and "面试前夜" in chinese
    assert all(f"<h4>{name} · " in chinese for name in index())
    assert ask("E5").question.zh in chinese
    english = night_page(cards=True)
    assert ask("E5").question.alone in english and ask("E5").question.zh not in english
    with pytest.raises(ValueError, match="no language 'de'"):
        night_page(language="de")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program of this text in the place of the browser."""

    def write(text):
        file = tmp_path / "browser"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(printing.VARIABLE, str(file))
        return file

    return write


def test_a_browser_prints_and_what_it_left_is_removed(program, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    program('for a in "$@"; do case "$a" in --print-to-pdf=*) cp "${a#*=}" /dev/null 2>/dev/null; '
            'printf "%%PDF $*" > "${a#*=}";; esac; done')  # fmt: skip
    flags = print_pdf("<p>hello</p>").decode()
    assert flags.startswith("%PDF --headless ") and "file://" in flags
    assert ("--no-sandbox" in flags) == (os.geteuid() == 0)
    assert [file.name for file in tmp_path.iterdir()] == ["browser"]


def test_what_stands_in_the_way_is_said(program, monkeypatch, tmp_path):
    program("echo 'no display' >&2; exit 3")
    with pytest.raises(NoBrowser, match="wrote no PDF: no display"):
        print_pdf("<p>hello</p>")
    program("exit 3")
    with pytest.raises(NoBrowser, match="wrote no PDF: exit code 3"):
        print_pdf("<p>hello</p>")
    program("exec sleep 60")
    monkeypatch.setattr(printing, "TIMEOUT_S", 0.1)
    with pytest.raises(NoBrowser, match="had not printed"):
        print_pdf("<p>hello</p>")
    monkeypatch.setenv(printing.VARIABLE, "no-such-browser")
    with pytest.raises(NoBrowser, match="which is no program here"):
        find_browser()
    monkeypatch.delenv(printing.VARIABLE)
    monkeypatch.setattr(printing.sys, "platform", "darwin")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NoBrowser, match="no browser that prints was found"):
        find_browser()


def test_the_page_is_written_before_it_is_printed(program, tmp_path, monkeypatch):
    program("exit 3")
    with pytest.raises(NoBrowser):
        write_night(tmp_path / "night.html", tmp_path / "night.pdf")
    assert (tmp_path / "night.html").is_file() and not (tmp_path / "night.pdf").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_chromium_prints_a_page_a_chapter(tmp_path, monkeypatch):
    monkeypatch.delenv(printing.VARIABLE, raising=False)
    write_night(pdf=tmp_path / "night.pdf")
    data = (tmp_path / "night.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert data.startswith(b"%PDF") and len(chapters()) < pages <= 2 * len(chapters())
    assert b"PlabMath" in data  # the font that came with the page
