"""The map of the course: every chapter with its questions and exercises, and which notebooks are there already."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from parallel_lab.course import page, progress
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


@dataclass(frozen=True)
class ChapterMap:
    """The chapters as a table, to show in a cell or a terminal.

    Attributes:
        rows: (number, title, notebook, questions, exercises) of each chapter; `notebook` is the file's name, empty
            while the chapter is not written.
    """

    rows: tuple[tuple[str, str, str, int, int], ...]

    def _repr_html_(self) -> str:
        lines = [f"| {' | '.join(HEAD)} |", "|:--|--:|--:|"]
        for number, title, notebook, questions, exercises in self.rows:
            name = f"[{number} · {title}]({notebook})" if notebook else f"{number} · {title} *(to come)*"
            lines.append(f"| {name} | {questions or ''} | {exercises or ''} |")
        return page.box([page.markdown("\n".join(lines))], "The chapters")

    def __repr__(self) -> str:
        cells = [
            (f"{number} {title}{'' if notebook else ' (to come)'}", str(questions or ""), str(exercises or ""))
            for number, title, notebook, questions, exercises in self.rows
        ]
        return page.columns(HEAD, cells)


def chapter_map(folder: Path | None = None) -> ChapterMap:
    """All chapters; those whose notebook is in `folder` (default: the course's `notebooks`) are links to it."""
    folder = folder or progress.home() / "notebooks"
    written = {file.name[:2]: file.name for file in folder.glob("[0-9][0-9]_*.ipynb")}
    questions = Counter(question.chapter for question in index().values())
    exercises = Counter(exercise.chapter for exercise in EXERCISES.values())
    return ChapterMap(tuple((n, title, written.get(n, ""), questions[n], exercises[n]) for n, title in TITLES.items()))
