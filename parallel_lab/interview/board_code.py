"""Code on the whiteboard: a function, or some lines, carried out by real ranks.

Lines find `torch`, `dist` (torch.distributed), `rank` and `n`, the number of ranks. What the last line comes to is
shown for each rank, with what the rank printed and sent.
"""

import ast
from collections.abc import Callable, Sequence
from typing import Any

from parallel_lab.course import page
from parallel_lab.course.tasks import without_magics
from parallel_lab.interview.board import Answer, block, picture, sentence
from parallel_lab.interview.board_ranks import WHERE, run_lines
from parallel_lab.runtime import LaunchError, Link, launch
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_bytes, table
from parallel_lab.view import draw

TIMEOUT_S, STILL_S = 120.0, 8.0  # ranks are ended that for so long neither compute nor call anything
MEMORY_BYTES = 2 * 2**30  # that a rank may allocate
_SHOWN = 300  # characters of what a rank comes to


def answer_code(code: str | Callable, ranks: int, link: Link | None, language: str) -> Answer:
    """What each rank came to, sent and printed, and the timeline; or why the ranks came to no end.

    Args:
        code: lines, or a function without arguments.
        ranks: how many.
        link: an emulated slower link, or None.
        language: `en` or `zh`.
    """
    job: tuple[Any, ...] = (code,)
    if isinstance(code, str):
        source = "\n".join(without_magics(code))
        try:
            ast.parse(source, WHERE)
        except SyntaxError as error:
            where = f"line {error.lineno}, {(error.text or '').strip()!r}: {error.msg}"
            return Answer("code", False, [block(where)], None, language)
        job = (run_lines, source)
    limits = {"timeout": TIMEOUT_S, "still_s": STILL_S, "memory_bytes": MEMORY_BYTES, "echo": False}
    try:
        run = launch(*job, ranks=ranks, link=link, device="cpu", **limits)
    except LaunchError as error:
        parts = [block(error.report), *_printed(error.output)]
        if error.trace and error.trace.spans:
            parts += [sentence("whiteboard.code-until-then", language), picture(draw(error, link=link))]
        return Answer("code", False, parts, error.trace, language)
    parts = [_outcome(run.results, run.trace), *_printed(run.output)]
    if run.trace.spans:
        parts += [sentence("whiteboard.code-recorded", language), picture(draw(run, link=link))]
    return Answer("code", True, parts, run.trace, language)


def _outcome(results: list[Any], trace: Trace) -> page.Part:
    said = [one if isinstance(one, str) else "" if one is None else repr(one) for one in results]
    ranks = range(trace.ranks)
    columns = {
        "rank": [str(rank) for rank in ranks],
        "sent": [format_bytes(trace.bytes_sent(rank)) for rank in ranks],
        "messages": [str(trace.messages(rank)) for rank in ranks],
        "value": [" ".join(one.split())[:_SHOWN] for one in said],
    }
    return block(table(columns))


def _printed(output: Sequence[str]) -> list[page.Part]:
    lines = [f"[rank {rank}] {line}" for rank, text in enumerate(output) for line in text.splitlines()]
    return [block("\n".join(lines))] if lines else []
