"""Decks, opened by Anki's own package without a window: what they hold, and that an update keeps the history."""

import csv
import json
import sqlite3
import zipfile
from contextlib import closing

import pytest
from anki.collection import (
    Collection,
    ExportAnkiPackageOptions,
    ImportAnkiPackageOptions,
    ImportAnkiPackageRequest,
)

from parallel_lab.course import progress
from parallel_lab.course.questions import index
from parallel_lab.interview import notes as texts
from parallel_lab.interview.anki import guid, write_deck, write_table
from parallel_lab.interview.anki_reviews import import_reviews, reviews
from parallel_lab.interview.atoms import atoms
from parallel_lab.interview.vocabulary import terms

EARLIER, LATER = 1.79e9, 1.80e9


@pytest.fixture(scope="session")
def deck(tmp_path_factory):
    file = tmp_path_factory.mktemp("deck") / "parallel-lab.apkg"
    write_deck(file, timestamp=EARLIER)
    return file


@pytest.fixture
def opened(tmp_path):
    made = []

    def open_one(name="collection"):
        (tmp_path / name).mkdir()
        made.append(Collection(str(tmp_path / name / "collection.anki2")))
        return made[-1]

    yield open_one
    for collection in made:
        collection.close()


def brought(collection, file):
    options = ImportAnkiPackageOptions(merge_notetypes=True)
    log = collection.import_anki_package(ImportAnkiPackageRequest(package_path=str(file), options=options)).log
    return {
        kind: len(getattr(log, kind)) for kind in ("new", "updated", "duplicate", "conflicting") if getattr(log, kind)
    }


def answered(collection, times):
    """Answers cards as they come, all with Good; the names of their notes."""
    collection.decks.select(collection.decks.id_for_name("Parallel Lab"))
    seen = []
    for _ in range(times):
        card = collection.sched.getCard()
        seen.append(card.note()["Id"])
        collection.sched.answerCard(card, 3)
    return seen


def test_anki_opens_the_deck_and_finds_every_card_in_both_languages(deck, opened):
    collection = opened()
    named = [*index(), *(key for key, atom in atoms().items() if atom.kind != "definition")]
    words = [term.key for term in terms()]
    assert brought(collection, deck) == {"new": len(named) + len(words)}
    held = [collection.get_note(one) for one in collection.find_notes("")]
    assert sorted(note["Id"] for note in held) == sorted(named + words)
    assert all(note.guid == guid(note["Id"]) for note in held)
    assert collection.card_count() == 2 * len(named) + len(words)
    for note in held:
        if note["Id"] in words:
            continue
        assert all(note[field] for field in ("Ask", "Answer", "AskZh", "AnswerZh", "Proof", "ProofZh")), note["Id"]
        assert "/" in note["Id"] or (note["More"] and note["MoreZh"] and note["Picture"]), note["Id"]


def test_the_file_is_what_the_format_asks_for_and_holds_the_cards_word_for_word(deck, tmp_path):
    """Read without Anki: a zip with SQLite, pictures under numbers, and `media`, which names them."""
    with zipfile.ZipFile(deck) as zipped:
        assert zipped.testzip() is None
        pictures = json.loads(zipped.read("media"))
        assert sorted(zipped.namelist()) == sorted(["collection.anki2", "media", *pictures])
        assert all(zipped.read(place).startswith(b"\x89PNG") for place in pictures)
        zipped.extract("collection.anki2", tmp_path)
    with closing(sqlite3.connect(tmp_path / "collection.anki2")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        models, decks = map(json.loads, database.execute("select models, decks from col").fetchone())
        held = database.execute("select id, guid, mid, tags, flds from notes").fetchall()
        cards = database.execute("select nid, did, ord from cards").fetchall()
    want = {guid(one.id): one for one in texts.notes()}
    assert len(held) == len(want) and {row[1] for row in held} == set(want)
    asks = {}
    for id_, name, model, tags, fields in held:
        note, kind = want[name], models[str(model)]
        named = dict(zip([field["name"] for field in kind["flds"]], fields.split("\x1f"), strict=True))
        assert kind["name"] == f"Parallel Lab {note.kind}" and named["Id"] == note.id
        for end, language in (("", "en"), ("Zh", "zh")):
            side = note.sides[language]
            said = [named[field + end] for field in ("Ask", "Answer", "More", "Proof")]
            assert said == [side.question, side.answer, side.more, note.proof[language]], note.id
        if note.picture:
            assert named["Picture"].split('"')[1] in pictures.values()
        assert tags.split() == list(note.tags)
        asks[id_] = [place for place, field in enumerate(("Ask", "AskZh")) if named[field]]
    assert sorted((note, place) for note, _, place in cards) == sorted((n, p) for n in asks for p in asks[n])
    assert {decks[str(deck_id)]["name"].split("::")[1] for _, deck_id, _ in cards} == {"Cards", "Atoms", "Terms"}


def test_terms_are_asked_both_ways(deck, opened):
    collection = opened()
    brought(collection, deck)
    for word in {term.key.split("/")[1] for term in terms()}:
        (to_chinese,), (to_english,) = (collection.find_cards(f'"Id:term/{word}/{to}"') for to in ("zh", "en"))
        asked, back = collection.get_card(to_chinese), collection.get_card(to_english)
        assert word in asked.question() and asked.note()["Answer"] not in asked.question()
        assert word in back.answer() and word not in back.question().rpartition("</style>")[2]


def test_decks_and_tags_are_by_chapter(deck, opened):
    collection = opened()
    brought(collection, deck)
    names = {one.name for one in collection.decks.all_names_and_ids()}
    for question in index().values():
        assert any(name.startswith(f"Parallel Lab::Cards::{question.chapter} ") for name in names)
    chapter = {question.id for question in index().values() if question.chapter == "09"}
    found = collection.find_notes("tag:parallel-lab::chapter-09 -tag:parallel-lab::term")
    assert {collection.get_note(one)["Id"].partition("/")[0] for one in found} == chapter


def test_a_card_shows_formulas_its_picture_and_what_was_measured(deck, opened):
    collection = opened()
    brought(collection, deck)
    english, chinese = (collection.get_card(one) for one in sorted(collection.find_cards("Id:E5")))
    assert "How does model parallelism change" in english.question() and "模型并行如何影响" not in english.question()
    assert "模型并行如何影响" in chinese.question() and "How does" not in chinese.question()
    for card in (english, chinese):
        assert r"\(\frac{m+p-1}{mp}\)" in card.answer() and "480 ms per step" in card.answer()
        assert "模型并行如何影响" in card.answer() and "How does model parallelism change" in card.answer()
    picture = english.note()["Picture"].split('"')[1]
    assert collection.media.have(picture) and not collection.media.check().missing


def test_an_update_brings_words_and_keeps_history(deck, opened, tmp_path, monkeypatch):
    collection = opened()
    brought(collection, deck)
    answered(collection, 6)
    before = collection.db.all("select id, nid, ivl, due, reps, queue from cards order by id")
    monkeypatch.setattr(texts, "html", lambda markdown, old=texts.html: f"<p>new words</p>{old(markdown)}")
    later = tmp_path / "later.apkg"
    count = write_deck(later, timestamp=LATER)
    assert brought(collection, later) == {"updated": count}
    assert collection.db.all("select id, nid, ivl, due, reps, queue from cards order by id") == before
    assert collection.db.scalar("select count() from revlog") == 6
    for one in map(collection.get_note, collection.find_notes("")):
        assert "new words" in (one["Answer"] or one["AnswerZh"])
    assert brought(collection, later) == {"duplicate": count}


def test_one_language_of_one_chapter(opened, tmp_path):
    count = write_deck(tmp_path / "zh.apkg", chapter="9", language="zh", with_atoms=False, timestamp=EARLIER)
    collection = opened()
    assert brought(collection, tmp_path / "zh.apkg") == {"new": count}
    assert count == sum(question.chapter == "09" for question in index().values()) == collection.card_count()
    card = collection.get_card(collection.find_cards("Id:A5")[0])
    assert "流水线并行" in card.question() and "What is pipeline parallelism" not in card.answer()


def test_the_same_deck_is_the_same_file(deck, tmp_path):
    for name in ("one.apkg", "other.apkg"):
        write_deck(tmp_path / name, chapter="09", timestamp=EARLIER)
    assert (tmp_path / "one.apkg").read_bytes() == (tmp_path / "other.apkg").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.apkg", "other.apkg"]


def exported(collection, file, *, legacy=True):
    options = ExportAnkiPackageOptions(with_scheduling=True, with_media=False, legacy=legacy)
    collection.export_anki_package(out_path=str(file), options=options, limit=None)
    return file


def test_reviews_come_back_only_once(deck, opened, tmp_path):
    collection = opened()
    brought(collection, deck)
    names = answered(collection, 5)
    file = exported(collection, tmp_path / "mine.apkg")
    keys = {name if "/" in name else f"{name}/definition" for name in names}
    assert reviews(file).keys() == keys
    assert not progress.read()["reviews"]
    assert import_reviews(file) == import_reviews(file) == (5, len(keys))
    kept = progress.read()["reviews"]
    assert kept.keys() == keys and sum(len(entry["log"]) for entry in kept.values()) == 5
    assert all(event["rating"] == 3 and event["from"] == "self" for entry in kept.values() for event in entry["log"])


def test_reviews_are_added_to_what_is_there(deck, opened, tmp_path):
    collection = opened()
    brought(collection, deck)
    (name,) = answered(collection, 1)
    key = name if "/" in name else f"{name}/definition"
    progress.record_review(key, 1, "self")
    import_reviews(exported(collection, tmp_path / "mine.apkg"))
    assert sorted(event["rating"] for event in progress.read()["reviews"][key]["log"]) == [1, 3]


def test_what_cannot_be_read_is_said(deck, opened, tmp_path):
    collection = opened()
    brought(collection, deck)
    newer = exported(collection, tmp_path / "newer.apkg", legacy=False)
    (tmp_path / "text.apkg").write_text("no package")
    with zipfile.ZipFile(tmp_path / "empty.apkg", "w") as zipped:
        zipped.writestr("media", json.dumps({}))
    for file, said in (
        (newer, "Support older Anki versions"),
        (tmp_path / "text.apkg", "no package of Anki"),
        (tmp_path / "empty.apkg", "no package of Anki"),
        (tmp_path / "none.apkg", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=said):
            reviews(file)
    with pytest.raises(ValueError, match="no reviews of the course's notes"):
        import_reviews(deck)


def test_a_package_of_another_deck_has_nothing_of_ours(deck, tmp_path):
    with zipfile.ZipFile(deck) as zipped:
        zipped.extract("collection.anki2", tmp_path)
    connection = sqlite3.connect(tmp_path / "collection.anki2")
    connection.execute("update notes set guid = id")
    connection.execute("insert into revlog select 1.8e12 + id, id, 0, 3, 1, 1, 2500, 1000, 0 from cards")
    connection.commit()
    connection.close()
    with zipfile.ZipFile(tmp_path / "other.apkg", "w") as zipped:
        zipped.write(tmp_path / "collection.anki2", "collection.anki2")
    assert reviews(tmp_path / "other.apkg") == {}


def test_a_table_is_read_again(tmp_path):
    file = tmp_path / "cards.csv"
    count = write_table(file, chapter="07")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == count and list(rows[0]) == [
        "id", "chapter", "kind", "question_en", "answer_en", "question_zh", "answer_zh"
    ]  # fmt: skip
    by_id = {row["id"]: row for row in rows}
    assert by_id["E5"]["question_en"] == index()["E5"].alone and by_id["E5"]["question_zh"] == index()["E5"].zh
    assert all(all(row.values()) for row in rows)
    write_table(file, chapter="09", language="en", with_atoms=False)
    assert file.read_text(encoding="utf-8-sig").startswith("id,chapter,kind,question_en,answer_en\nA5,09,ask,")


@pytest.mark.parametrize("write", [write_deck, write_table])
def test_what_is_not_there_is_said(write, tmp_path):
    with pytest.raises(KeyError, match="chapter with questions"):
        write(tmp_path / "a.apkg", chapter="77")
    with pytest.raises(ValueError, match="no language 'de'"):
        write(tmp_path / "a.apkg", language="de")
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "none" / "a.apkg", chapter="09")
