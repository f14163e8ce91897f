"""The claims that are often heard, each with its verdict and a link to the cell that measures it.

`claims()` shows them; `python -m parallel_lab.course.claims` writes them to CLAIMS.md, which the README links.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from parallel_lab.course import page, workspace
from parallel_lab.course.anchors import heading_above
from parallel_lab.course.questions import Question, ask, index

VERDICTS = ("right", "half right", "wrong")
HEAD = ("question", "claim", "verdict", "why", "measured in")
FILE = "CLAIMS.md"
ABOUT = """<!-- Written by `python -m parallel_lab.course.claims`. Do not edit. -->
# Twenty claims, judged

These sentences stand in lecture notes and in collections of interview answers. Each is put to the test in a chapter,
by a measurement or by the papers that it speaks of. A verdict holds for what the sentence says in general; what is
right in it is said beside it.

"""


@dataclass(frozen=True)
class Claim:
    """A sentence that is often heard, and what became of it."""

    question: Question  # whose `test` it is
    verdict: str  # one of `VERDICTS`
    why: str
    zh: str  # why, in Chinese
    evidence: str  # `notebook#cell`

    @property
    def place(self) -> tuple[str, str]:
        """The chapter's file and the heading that the evidence stands under."""
        notebook, _, cell = self.evidence.partition("#")
        return heading_above(notebook, cell) or (notebook, cell)


@cache
def judged() -> tuple[Claim, ...]:
    """All claims, in the order of the index."""
    verdicts = yaml.safe_load(files("parallel_lab.course").joinpath("verdicts.yaml").read_text(encoding="utf-8"))
    found = []
    for question in index().values():
        if question.test:
            verdict, why, zh = verdicts[question.id]
            found.append(Claim(question, verdict, why, zh, ask(question.id).evidence))
    return tuple(found)


def claims() -> page.Page:
    """The claims in a table: the sentence, the verdict, why, and where it is measured."""
    rows = [(one.question.id, one.question.test, one.verdict, one.why, *one.place) for one in judged()]
    linked = page.markdown(table("")).html
    lines = [
        f"{name} {verdict}: {claim}\n    {why} ({file}, “{under}”)" for name, claim, verdict, why, file, under in rows
    ]
    return page.Page("Claims", [page.paragraph("Twenty claims, judged", "head"), page.Part(linked, "\n".join(lines))])


def table(folder: str) -> str:
    """The claims as a table of Markdown, whose links begin in `folder`; a web viewer makes its anchors by itself."""
    lines = [f"| {' | '.join(HEAD)} |", "|:--|:--|:--|:--|:--|"]
    for one in judged():
        file, heading = one.place
        link = f"[{file[:2]}, {heading}]({folder}{file})"
        why = f"{one.why} {one.zh}"
        lines.append(f"| {' | '.join((one.question.id, one.question.test, one.verdict, why, link))} |")
    return "\n".join(lines) + "\n"


def text() -> str:
    """What stands in CLAIMS.md."""
    return ABOUT + table("notebooks/")


def main() -> None:
    """Writes CLAIMS.md at the top of the course."""
    file = Path(workspace.root()) / FILE
    file.write_text(text(), encoding="utf-8")
    print(f"wrote {file.name}: {len(judged())} claims")


if __name__ == "__main__":
    main()
