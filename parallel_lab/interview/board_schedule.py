"""A schedule on the whiteboard: parsed, checked, simulated, and carried out by real ranks where that is asked for.

Passes are written as `2F0`: stage 2, forward, microbatch 0. What they wait for is added, as in `pipeline.with_needs`. A
text with messages, `0send0>1`, is taken as it stands. A forward takes one unit of time and a whole backward two, as in
`PassCost`; messages between stages are free. In a text of messages alone each takes one unit.
"""

import re
from dataclasses import replace

from parallel_lab.course import page
from parallel_lab.interview.board import Answer, block, picture, sentence
from parallel_lab.interview.board_ranks import alone, one_step
from parallel_lab.pipeline import one_f_one_b, with_messages, with_needs
from parallel_lab.pipeline.program import program
from parallel_lab.plan import COMPUTE, NAMES, SEND, Plan, check_plan, parse, to_grid
from parallel_lab.runtime import launch
from parallel_lab.simulate import PassCost, simulate
from parallel_lab.trace import Trace
from parallel_lab.trace.units import format_share, table
from parallel_lab.view import draw

_BREAKS = re.compile(r"\s*(?:\n|[/;；])\s*")
_STEP = re.compile(r"\s*(?:rank\s+\d+\s*:|\d+[A-Za-z])")
CLOSE = 1e-12
MOST_RANKS = 8


def is_schedule(text: str) -> bool:
    """Whether `text` begins as a schedule does; no Python begins so."""
    return bool(_STEP.match(text))


def answer_schedule(text: str, language: str, run: bool = False) -> Answer:
    """What is wrong with a schedule, or what it costs beside 1F1B.

    Args:
        text: a row a rank; rows stand on lines of their own, or between `/` or `;`.
        language: `en` or `zh`.
        run: whether real ranks carry it out too, with a small layer for each stage.
    """
    try:
        plan = plan_of(text)
    except ValueError as wrong:  # a PlanError is one
        return Answer("schedule", False, [block(str(wrong))], None, language)
    trace = simulate(plan, cost_of(plan))
    passes = bool(_passes(plan))
    shown = draw(replace(trace, memory=()), title="Simulated; one unit of time is drawn as 1 s")
    parts = [*(_costs(plan, trace, language) if passes else ()), picture(shown, to_grid(plan))]
    if run and passes:
        parts.append(_carried_out(plan, language))
    return Answer("schedule", True, parts, trace, language)


def plan_of(text: str) -> Plan:
    """The plan that `text` writes down, complete and possible.

    Raises:
        ValueError: it is none; the message shows the step.
    """
    plan = parse("\n".join(_BREAKS.split(text.strip())))
    if len(_passes(plan)) == len(plan):
        program(plan.rows, 0)  # all passes there, in an order that can be done
        return with_needs(plan.rows)
    check_plan(plan)
    return plan


def cost_of(plan: Plan) -> PassCost:
    """One unit for a forward, two for a backward; messages are free beside passes, and take a unit without any."""
    return PassCost(message_s=0.0 if _passes(plan) else 1.0, activation_bytes=1)


def _passes(plan: Plan) -> list:
    return [op for op in plan if op.lane == COMPUTE and op.kind in NAMES]


def _costs(plan: Plan, trace: Trace, language: str) -> list[page.Part]:
    """Time, bubble and activations held, beside 1F1B with as many stages and microbatches."""
    m = 1 + max(op.mb for op in plan)
    stages = len({op.part for op in plan})
    usual = one_f_one_b(plan.ranks, m) if stages == plan.ranks else None
    other = simulate(usual, cost_of(usual)) if usual else None
    values = {"p": plan.ranks, "stages": stages, "m": m, "units": f"{trace.duration_s:g}"}
    said = sentence("whiteboard.schedule-time", language, **values, bubble=format_share(trace.bubble()))
    columns = {"rank": [str(rank) for rank in range(plan.ranks)], "held": _held(trace)}
    parts = [said, sentence("whiteboard.schedule-units", language)]
    if other:
        columns["1F1B"] = _held(other)
        more = trace.duration_s / other.duration_s
        values = {"units": f"{other.duration_s:g}", "bubble": format_share(other.bubble()), "times": f"{more:.3g}"}
        parts.append(sentence("whiteboard.schedule-beside", language, **values))
    return [*parts, sentence("whiteboard.schedule-held", language), block(table(columns))]


def _held(trace: Trace) -> list[str]:
    return [str(trace.peak_bytes(rank)) for rank in range(trace.ranks)]


def _carried_out(plan: Plan, language: str) -> page.Part:
    """Whether real ranks that follow the plan come to the loss and the gradients of one process."""
    if plan.ranks > MOST_RANKS:
        return sentence("whiteboard.schedule-many", language, most=MOST_RANKS)
    m = 1 + max(op.mb for op in plan)
    run = launch(one_step, plan.rows, m, ranks=plan.ranks, device="cpu", echo=False)
    stages = 1 + max(op.part for op in plan)
    loss, right = alone(stages, m)
    got = {stage: gradient for own in run.results for stage, gradient in own[1].items()}
    apart = max([abs(run[0][0] - loss), *((got[s] - right[s]).abs().max().item() for s in right)])
    sent = sum(op.lane == SEND for op in with_messages(plan))
    key = "whiteboard.schedule-same" if apart < CLOSE else "whiteboard.schedule-apart"
    return sentence(key, language, p=plan.ranks, apart=f"{apart:.1g}", messages=sent)
