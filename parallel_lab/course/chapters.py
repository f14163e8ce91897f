"""The map of the course: every chapter with its questions and exercises, and which notebooks are there already."""

from collections import Counter
from pathlib import Path

from parallel_lab.course import page, workspace
from parallel_lab.course.questions import index
from parallel_lab.grading.exercises import EXERCISES

TITLES = {
    "00": "Start here: the lab in ten minutes",
    "01": "Why train in parallel at all",
    "02": "Collectives: how ranks talk",
    "03": "Data parallelism",
    "04": "Synchronous, asynchronous, and between",
    "05": "Parameter servers",
    "06": "ZeRO and FSDP: sharding what data parallelism copies",
    "07": "Model parallelism: splitting tensors",
    "08": "Making model parallelism fast",
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
}
HEAD = ("chapter", "interview questions", "exercises")


def chapter_map(folder: Path | None = None) -> page.Page:
    """All chapters; those whose notebook is in `folder` (default: the course's `notebooks`) are links to it."""
    folder = folder or workspace.root() / "notebooks"
    written = {file.name[:2]: file.name for file in folder.glob("[0-9][0-9]_*.ipynb")}
    questions = Counter(question.chapter for question in index().values())
    exercises = Counter(exercise.chapter for exercise in EXERCISES.values())
    linked, plain = [f"| {' | '.join(HEAD)} |", "|:--|--:|--:|"], []
    for number, title in TITLES.items():
        counts = [str(counter[number] or "") for counter in (questions, exercises)]
        link = f"[{number} · {title}]({written[number]})" if number in written else f"{number} · {title} *(to come)*"
        linked.append(f"| {' | '.join([link, *counts])} |")
        plain.append([f"{number} {title}{'' if number in written else ' (to come)'}", *counts])
    part = page.Part(page.markdown("\n".join(linked)).html, page.table(HEAD, plain).text)
    return page.Page("The chapters", [part])
