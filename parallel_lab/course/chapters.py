"""The map of the course: its chapters, what stands in them and what comes next, and how far the learner is."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from parallel_lab.course import page, progress, workspace
from parallel_lab.course.drills import listed
from parallel_lab.course.questions import card, index
from parallel_lab.course.tasks import Task, tasks

TITLES = {
    "00": "Start here: the lab in ten minutes",
    "01": "Why train in parallel at all",
    "02": "Collectives: how ranks talk",
    "03": "Data parallelism",
    "04": "Synchronous, asynchronous, and between",
    "05": "Parameter servers",
    "06": "ZeRO and FSDP: sharding what data parallelism copies",
    "07": "Model parallelism: cutting the model over ranks",
    "08": "Tensor parallelism, and making it fast",
    "09": "Pipeline parallelism",
    "10": "Long contexts and many experts",
    "11": "Hybrid parallelism",
    "12": "Mixed precision",
    "13": "Pruning, quantization, compression",
    "14": "Where the time goes, and how to win it back",
    "15": "Scheduling and load balance",
    "16": "Fault tolerance",
    "17": "Storage and data",
    "18": "Evaluation",
    "19": "Security",
    "20": "Energy",
    "21": "Choosing hardware, frameworks, a scheme",
    "22": "Where large models are trained and used",
    "23": "What goes wrong",
    "24": "The interview",
}
HEAD = ("chapter", "interview questions", "exercises and gaps")
PROGRESS_HEAD = ("chapter", "kind", "name", "state", "checks", "hints", "last")
KNOWN = {"knew": "known", "partly": "known in part", "missed": "not known"}


def chapter_map(folder: Path | None = None) -> page.Page:
    """All chapters; those whose notebook is in `folder` (default: the course's `notebooks`) are links to it."""
    folder = folder or workspace.root() / "notebooks"
    written = {file.name[:2]: file.name for file in folder.glob("[0-9][0-9]_*.ipynb")}
    questions = Counter(question.chapter for question in index().values())
    exercises = Counter(task.chapter for task in tasks().values())
    linked, plain = [f"| {' | '.join(HEAD)} |", "|:--|--:|--:|"], []
    for number, title in TITLES.items():
        counts = [str(counter[number] or "") for counter in (questions, exercises)]
        link = f"[{number} · {title}]({written[number]})" if number in written else f"{number} · {title} *(to come)*"
        linked.append(f"| {' | '.join([link, *counts])} |")
        plain.append([f"{number} {title}{'' if number in written else ' (to come)'}", *counts])
    part = page.Part(page.markdown("\n".join(linked)).html, page.table(HEAD, plain).text)
    return page.Page("The chapters", [part])


def next_exercise(passed: str | None = None) -> Task | None:
    """The gap or exercise that comes next, the same wherever the course names one; None if all are solved.

    It is the first unsolved one in the chapter of the one that was solved last; where that chapter is done, the first
    unsolved one after it in the order of the course; where none follows, the first from the beginning; with nothing
    solved, the first. What is solved once and passes again is not solved last by that.

    Args:
        passed: the name of one that passed just now. It was solved last, also where that was not recorded.
    """
    entries, known = progress.read(), tasks()
    done = [name for name in known if progress.solved(entries["exercises"].get(name, {}))]
    if passed in known and passed not in done:
        done, last = [*done, passed], passed
    else:
        last = max(reversed(done), key=lambda name: progress.solved_at(entries, name), default=None)
    names = list(known)
    start = names.index(last) + 1 if last else 0
    here = [name for name in names if last and known[name].chapter == known[last].chapter]
    return next((known[name] for name in here + names[start:] + names[:start] if name not in done), None)


def link_to(task: Task) -> str:
    """Where the cell of a task is, as notebooks link to it; it holds for those of the learner and of the course."""
    return f"../{task.folder}/{task.notebook}.ipynb{task.anchor}"


def progress_table() -> page.Page:
    """How far the learner is, in the order of the course: what was begun, how much there is, and what comes next."""
    file, comes = progress.location(), next_exercise()
    # Seen from the working folder, if it lies in the course: a stored output is the same anywhere.
    place = os.path.relpath(file) if file.is_relative_to(workspace.root()) else str(file)
    head = page.paragraph("Your progress", "head")._replace(text=None)
    begun = list(_begun())
    parts = [head, page.table(PROGRESS_HEAD, begun) if begun else page.paragraph("Nothing solved yet.")]
    parts.append(page.paragraph(totals()))
    if comes:
        link = page.markdown(f"Next: [{comes}]({link_to(comes)})").html
        parts.append(page.Part(link, f"Next: {comes}"))
    return page.Page("Progress", [*parts, page.paragraph(place, "small")])


def totals() -> str:
    """How much of what there is, is done: `4 of 12 exercises, 9 of 20 gaps, 3 of 7 self-checks, ...`."""
    entries, done, there = progress.read(), Counter(), Counter()
    for name, task in tasks().items():
        kind = "gaps" if task.gap else "exercises"
        there[kind] += 1
        done[kind] += progress.solved(entries["exercises"].get(name, {}))
    for name in quizzes():
        there["self-checks"] += 1
        done["self-checks"] += progress.solved(entries["quizzes"].get(name, {}))
    for name in listed():
        there["drills"] += 1
        done["drills"] += progress.solved(entries["drills"].get(name, {}))
    for question in index().values():
        there["cards"] += bool(card(question).status)
        done["cards"] += entries["cards"].get(question.id, {}).get("known") == "knew"
    kinds = ("exercises", "gaps", "self-checks", "drills", "cards")
    return ", ".join(f"{done[kind]} of {there[kind]} {kind}" for kind in kinds if there[kind])


def quizzes() -> list[str]:
    """The names of the self-checks, one per chapter."""
    return sorted(file.stem for file in Path(__file__).with_name("quizzes").glob("[0-9]*.yaml"))


def _begun() -> Iterator[tuple[str, ...]]:
    """The rows of what is recorded; what the course no longer has is left out."""
    entries = progress.read()
    for number in TITLES:
        named = [("exercises", "gap" if t.gap else "exercise", n) for n, t in tasks().items() if t.chapter == number]
        named += [("quizzes", "self-check", name) for name in quizzes() if name.startswith(number)]
        named += [("drills", "drill", name) for name, chapter in listed().items() if chapter == number]
        named += [("cards", "card", name) for name, question in index().items() if question.chapter == number]
        for group, kind, name in named:
            if entry := entries[group].get(name):
                state = KNOWN.get(entry.get("known", ""), "") or progress.state(entry)
                yield number, kind, name, state, *(str(entry.get(key, "")) for key in ("checks", "hints", "when"))
