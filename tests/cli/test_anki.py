"""`plab anki`: a deck, a table, reviews back from Anki, and what is wrong in one line."""

import sqlite3
import zipfile

import pytest
from click.testing import CliRunner

from parallel_lab.cli import main
from parallel_lab.course import progress


def plab(*arguments):
    return CliRunner().invoke(main, ["anki", *map(str, arguments)])


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PARALLEL_LAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_says_what_it_is():
    assert "--import-reviews" in plab("--help").output and "in Chinese" in " ".join(plab("--help").output.split())


def test_a_deck_and_a_table_of_one_chapter(in_a_folder):
    written = plab("--chapter", "9")
    assert written.exit_code == 0 and "parallel-lab-09.apkg: " in written.output and " notes, " in written.output
    assert zipfile.ZipFile(in_a_folder / "parallel-lab-09.apkg").testzip() is None
    assert plab("--chapter", "09", "--csv", "-o", "mine.csv", "--language", "zh").exit_code == 0
    assert "流水线并行" in (in_a_folder / "mine.csv").read_text(encoding="utf-8-sig")


def test_reviews_are_taken_if_asked(in_a_folder):
    plab("--chapter", "09", "--cards-only", "-o", "deck.apkg")
    with zipfile.ZipFile("deck.apkg") as zipped:
        zipped.extract("collection.anki2")
    connection = sqlite3.connect("collection.anki2")
    connection.execute("insert into revlog select 1790000000000 + id % 1000, id, 0, 2, 1, 1, 2500, 1000, 0 from cards")
    connection.commit()
    connection.close()
    with zipfile.ZipFile("back.apkg", "w") as zipped:
        zipped.write("collection.anki2")
    assert not progress.read()["reviews"]
    taken = plab("--import-reviews", "back.apkg")
    assert taken.exit_code == 0 and "are in your progress now" in taken.output
    assert progress.read()["reviews"]["A5/definition"]["log"][0]["rating"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "none/deck.apkg"), "there is no folder none"),
        (("--chapter", "77"), "there is no chapter with questions '77'"),
        (("--import-reviews", "none.apkg"), "there is no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said):
    result = plab(*arguments)
    last = result.output.splitlines()[-1]
    assert result.exit_code == 1 and said in last and last.startswith("Error: ")


def test_ctrl_c_ends_it(monkeypatch):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("parallel_lab.cli.anki.write_deck", stop)
    assert plab().exit_code == 130
