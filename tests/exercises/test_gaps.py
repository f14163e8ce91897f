"""The gaps of the chapters: each is solved by its solution, stands where it says, and tells usual mistakes apart."""

import inspect
import json
import math
import re
import runpy
from collections import Counter
from fractions import Fraction
from functools import cache
from statistics import fmean

import pytest
import torch
import torch.distributed as dist
from grading import ROOT, by_value

from parallel_lab import compat
from parallel_lab.course.checks import check
from parallel_lab.grading.exercises import EXERCISES
from parallel_lab.grading.gaps import GAPS
from parallel_lab.grading.gaps.forms import FunctionGap
from parallel_lab.grading.lab import Outcome, Wrong
from parallel_lab.grading.rank_side import Case, plain
from parallel_lab.network import ring_cost
from parallel_lab.trace import Trace

by_value(__name__)
FUNCTIONS = [gap for gap in GAPS if isinstance(gap, FunctionGap)]
MISTAKES = [
    pytest.param(gap, *known, id=f"{gap.name}-{i}") for gap in FUNCTIONS for i, known in enumerate(gap.mistakes)
]
MAY_BE_NONE = {  # the right answer of some calls
    *("held_up_by", "ranks_needed", "heads_of_rank", "most_ranks", "cp_tokens", "fault_newest_whole"),
    *("sec_first_break", "wrong_calls"),
}
each_gap = pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.name)


@cache
def solutions(notebook):
    """What the solutions of a chapter define, under a name of no module, so that it travels to ranks by value."""
    return runpy.run_path(str(ROOT / "solutions" / "gaps" / f"{notebook}.py"), run_name="__plab__")


GATHER = solutions("02_collectives_and_topologies")["ring_all_gather"]
STEP = solutions("06_sharded_data_parallel")["sharded_step"]


@cache
def cells(notebook, kinds=("code", "markdown")):
    """The sources of the chapter's cells, by id, in their order."""
    text = (ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    return {cell["id"]: "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] in kinds}


def cell_id(gap):
    return f"gap-{gap.name.replace('_', '-')}"


def stub(gap):
    space = {"__name__": "__plab__"}
    exec(cells(gap.notebook)[f"{cell_id(gap)}-write"], space)
    return space[gap.name]


def called_here(gap, fn, seed=0):
    """What the graders say of `fn`, called in this process."""
    case = Case(1, defaults=tuple(gap.settings.items()))
    given = gap.given(case, 0, torch.Generator().manual_seed(seed))
    outcome = Outcome(case, [given], [plain(gap.drive(fn, case, *given))], [given], Trace(1, ()), expect=gap.expected)
    found = []
    for checks in gap.tests.values():
        for grader in checks[0].graders:
            try:
                grader(outcome)
            except Wrong as wrong:
                found.append(wrong)
    return found


@each_gap
def test_solution_passes_and_shows_why(gap):
    report = check(gap.name, solutions(gap.notebook)[gap.name])
    assert report.passed, repr(report)
    assert gap.solution_note in repr(report) and f"solutions/gaps/{gap.notebook}.py" in repr(report)


@each_gap
def test_stub_is_not_started(gap):
    report = check(gap.name, stub(gap))
    assert not report.verdicts and "not started" in repr(report)
    assert list(inspect.signature(stub(gap)).parameters) == list(
        inspect.signature(solutions(gap.notebook)[gap.name]).parameters
    )


@pytest.mark.parametrize(("gap", "said", "wrong"), MISTAKES)
def test_mistake_gets_its_advice_and_names_a_call(gap, said, wrong):
    found = called_here(gap, wrong)
    assert said in [wrong.advice for wrong in found]
    first = next(iter(inspect.signature(stub(gap)).parameters))
    assert all(wrong.seen.startswith(f"{gap.name}({first}=") for wrong in found)


@each_gap
def test_forgotten_return_is_told(gap):
    if isinstance(gap, FunctionGap):
        found = called_here(gap, lambda *call: None)
        never = "Your function returns None: is there a `return`?"
        if gap.name in MAY_BE_NONE:
            never = "Your function returns None in each call: is a `return` missing, or a condition never met?"
        assert found and all(wrong.advice == never for wrong in found)
        return
    right = solutions(gap.notebook)[gap.name]

    def forgotten(*given):
        right(*given)

    assert re.search(r"got None.*\n +You return None\b.*: return the tensor that", repr(check(gap.name, forgotten)))


def test_return_that_is_missing_in_one_branch_is_told():
    def in_one_branch(mixed, moments):
        if mixed:
            return 8 + 4 * moments

    advice = {wrong.advice for wrong in called_here(EXERCISES["bytes_per_parameter"], in_one_branch)}
    assert advice == {"In this call your function returns None: does each of its branches end in a `return`?"}


def test_none_that_is_the_answer_is_no_forgotten_return():
    gap = EXERCISES["ranks_needed"]
    right = solutions(gap.notebook)[gap.name]
    found = called_here(gap, lambda *call: 8 if right(*call) is None else None)
    assert all("returns None: is a condition not met here" in wrong.advice for wrong in found[:2])
    assert "return" not in found[2].advice


def test_of_a_list_only_the_place_is_told_where_it_first_differs():
    gap = EXERCISES["ring_chunks"]
    found = called_here(gap, lambda rank, n: [rank] * (2 * n - 2))
    assert (
        found[0].seen
        == "ring_chunks(rank=0, n=4) returned [0, 0, 0, 0, 0, 0]; item 1 is 0, expected 3; wrong in 4 of 4 calls"
    )
    found = called_here(gap, lambda rank, n: [rank])
    assert "returned [0], which has 1 item; expected 6;" in found[0].seen


def test_a_part_of_a_large_number_is_seen():
    found = called_here(EXERCISES["largest_model"], lambda sent, n, item: sent * n / (2 * (n - 1) * item))
    assert re.search(r"returned \d+\.\d\d, expected \d+;", found[-1].seen), found[-1].seen


def test_of_two_mistakes_that_one_test_cannot_tell_apart_the_one_that_fits_all_tests_is_named():
    gap = EXERCISES["bytes_per_parameter"]

    def moments_of_two_bytes(mixed, moments):
        return 2 + 2 + 4 + 2 * moments if mixed else 4 + 4 + 4 * moments

    adam, others = called_here(gap, moments_of_two_bytes)  # for Adam alone, a missing float32 copy costs as much
    assert adam.advice == others.advice
    assert adam.advice.startswith("In mixed precision the moments stay in float32")


@each_gap
def test_level_minutes_and_the_longer_exercise_stand_at_it(gap):
    text, longer = cells(gap.notebook)[cell_id(gap)], EXERCISES[gap.exercise]
    assert f"**{gap.level.capitalize()} · {gap.minutes} minutes · asked by interviewers ({gap.asked}).**" in text
    assert f"[{longer.title}](../exercises/{longer.notebook}.ipynb)" in text
    assert 2 <= gap.minutes <= 10
    assert not longer.gap


@each_gap
def test_stub_and_check_follow_the_text_and_no_other_cell_uses_the_answer(gap):
    ids = list(cells(gap.notebook))
    place = ids.index(cell_id(gap))
    assert ids[place + 1 : place + 3] == [f"{cell_id(gap)}-write", f"{cell_id(gap)}-check"]
    assert f'check("{gap.name}", {gap.name})' in cells(gap.notebook)[f"{cell_id(gap)}-check"]
    code = cells(gap.notebook, ("code",)).items()
    elsewhere = [text for name, text in code if not name.startswith(cell_id(gap))]
    assert not any(re.search(rf"(?<![.\w]){gap.name}(\(| =|, )", text) for text in elsewhere), "its name is used again"


def test_each_chapter_has_two_to_four_in_the_order_of_its_text():
    counts = Counter(gap.chapter for gap in GAPS)
    assert set(counts) == {f"{chapter:02}" for chapter in range(24)}
    for chapter, count in counts.items():
        assert 2 <= count <= 4, f"chapter {chapter}"
    for notebook in {gap.notebook for gap in GAPS}:
        written = [
            name for name in cells(notebook) if name.startswith("gap-") and not name.endswith(("write", "check"))
        ]
        assert written == [cell_id(gap) for gap in GAPS if gap.notebook == notebook]


def test_a_crash_names_the_call():
    def ring_chunks(rank, n):
        return [0][n]

    report = check("ring_chunks", ring_chunks)
    assert "It was called with 0, 4." in repr(report) and "IndexError" in repr(report)


def test_case_is_named_for_an_answer_in_ranks_and_not_for_one_whose_call_is_printed():
    called = repr(check("ring_chunks", lambda rank, n: [rank] * n))
    assert "ring_chunks(rank=0, n=4) returned" in called
    assert "The case:" not in called and "case(" not in called and "1 rank" not in called, called
    in_ranks = repr(check("ring_all_gather", own_first))
    assert "The case: 2 ranks, each with" in in_ranks and 'case("ring_all_gather", ranks=2, seed=' in in_ranks


def test_numbers_may_be_of_another_type_and_are_right_but_for_rounding():
    gap = EXERCISES["ring_chunks"]
    answer = solutions(gap.notebook)[gap.name]
    assert not called_here(gap, lambda rank, n: tuple(0.1 * chunk * 10 for chunk in answer(rank, n)))
    assert not called_here(gap, lambda rank, n: [Fraction(3 * chunk, 3) for chunk in answer(rank, n)])
    assert called_here(gap, lambda rank, n: None)


def in_floats(sent_bytes, n, item_bytes):
    return math.floor(sent_bytes / (2 * (n - 1) / n) / item_bytes)


def as_the_lab_counts(sent_bytes, n, item_bytes):
    """The most whose ring, rounded to whole bytes as a trace has it, stays within the limit."""
    about = sent_bytes * n // (2 * (n - 1) * item_bytes)
    tried = range(max(0, about - 2), about + 3)
    return max(one for one in tried if ring_cost("all_reduce", n, one * item_bytes).sent_bytes <= sent_bytes)


def in_equal_chunks(sent_bytes, n, item_bytes):
    return sent_bytes // (2 * (n - 1) * item_bytes) * n


def without_the_largest_and_least(waits_s):
    typical = [fmean(sorted(own)[1:-1]) for own in waits_s]
    others = [typical[:rank] + typical[rank + 1 :] for rank in range(len(typical))]
    return next((rank for rank, own in enumerate(typical) if own <= min(others[rank]) / 2), None)


OTHERS_RIGHT = [
    ("largest_model", in_floats),
    ("largest_model", as_the_lab_counts),
    ("largest_model", in_equal_chunks),
    ("held_up_by", without_the_largest_and_least),
]


@pytest.mark.parametrize(("name", "fn"), OTHERS_RIGHT)
def test_other_right_answers_pass_whatever_is_drawn(name, fn):
    for seed in range(30):
        assert not called_here(EXERCISES[name], fn, seed), f"seed {seed}"


TWO_AT_ONCE = [  # (gap, answer with two mistakes, what the first test says of it that it fails)
    ("largest_model", lambda sent, n, item: sent / item, "just once.* And return a whole number"),
    ("held_up_by", lambda waits_s: (sums := [sum(own) for own in waits_s]).index(min(sums)), "outweighs all others"),
    ("held_up_by", lambda waits_s: (sums := [sum(own) for own in waits_s]).index(max(sums)), "Who waits long"),
]


@pytest.mark.parametrize(("name", "fn", "said"), TWO_AT_ONCE)
def test_two_mistakes_at_once_get_advice_too(name, fn, said):
    for seed in range(10):
        assert re.search(said, called_here(EXERCISES[name], fn, seed)[0].advice), f"seed {seed}"


def own_first(own):
    return GATHER(own).roll(-dist.get_rank(), 0)


def by_a_collective(own):
    held = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(held, own)
    return torch.stack(held)


def all_at_once(own):
    """Sends its tensor to every other rank, not only to its neighbor."""
    rank, n = dist.get_rank(), dist.get_world_size()
    held = [own.clone() for _ in range(n)]
    works = [dist.isend(own, (rank + k) % n) for k in range(1, n)]
    for k in range(1, n):
        dist.recv(held[(rank - k) % n], (rank - k) % n)
    for work in works:
        work.wait()
    return torch.stack(held)


def to_the_left(own):
    rank, n = dist.get_rank(), dist.get_world_size()
    held, going = [own.clone() for _ in range(n)], own
    for k in range(1, n):
        sent = dist.isend(going, (rank - 1) % n)
        dist.recv(held[(rank + k) % n], (rank + 1) % n)
        sent.wait()
        going = held[(rank + k) % n]
    return torch.stack(held)


def mean_of_means(losses):
    mean = losses.mean()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def summed(losses):
    total = losses.sum()
    dist.all_reduce(total)
    return total


def in_two_messages(losses):
    total, count = losses.sum(), torch.tensor(float(len(losses)), dtype=losses.dtype)
    dist.all_reduce(total)
    dist.all_reduce(count)
    return total / count


def of_the_sum(weights, gradient, lr):
    return STEP(weights, gradient, lr * dist.get_world_size())


def as_data_parallel(weights, gradient, lr):
    total = gradient.clone()
    dist.all_reduce(total)
    return weights - lr * total / dist.get_world_size()


def reduced_everywhere(weights, gradient, lr):
    stepped = as_data_parallel(weights, gradient, lr)
    n, rank = dist.get_world_size(), dist.get_rank()
    dist.all_gather(list(stepped.chunk(n)), stepped.chunk(n)[rank].clone())
    return stepped


def scattered_for_show(weights, gradient, lr):
    """Ignores what the reduce-scatter brings, and gathers all gradients whole."""
    n = dist.get_world_size()
    dist.reduce_scatter(torch.empty(len(gradient) // n, dtype=gradient.dtype), list(gradient.chunk(n)))
    all_ = [torch.empty_like(gradient) for _ in range(n)]
    dist.all_gather(all_, gradient)
    return weights - lr * sum(all_) / n


ON_RANKS = [  # (gap, wrong answer, what its report says)
    ("ring_all_gather", own_first, "at 2 ranks: rank 1: element .* Row r has to be the tensor of rank r"),
    ("ring_all_gather", by_a_collective, "rank 0 called all_gather"),
    (
        "ring_all_gather",
        all_at_once,
        r"at 4 ranks: rank 0 sent to ranks 1, 2, 3; expected rank 1 alone .* right neighbor only",
    ),
    (
        "ring_all_gather",
        to_the_left,
        r"at 4 ranks: rank 0 sent to rank 3; expected rank 1 alone .* right neighbor only",
    ),
    ("global_mean", mean_of_means, "at 2 ranks, counts .3, 7.: every rank returned the mean of the ranks' means"),
    ("global_mean", summed, "returned the sum all_reduce sums; how many samples"),
    ("global_mean", in_two_messages, "called all_reduce, all_reduce; expected all_reduce Two numbers fit"),
    ("sharded_step", of_the_sum, "at 2 ranks: every rank returned the step of the summed gradients .* divide by"),
    ("sharded_step", as_data_parallel, "rank 0 called all_reduce; expected reduce_scatter, all_gather"),
    ("sharded_step", reduced_everywhere, "called all_reduce, all_gather; expected .* half an all-reduce"),
    (
        "sharded_step",
        scattered_for_show,
        "what one rank received was changed on the way, and every rank was still right",
    ),
]


@pytest.mark.parametrize(("name", "fn", "said"), ON_RANKS, ids=lambda value: getattr(value, "__name__", ""))
def test_wrong_answer_on_ranks_is_told_what_is_wrong(name, fn, said):
    report = check(name, fn)
    assert not report.passed
    assert re.search(said, " ".join(repr(report).split())), repr(report)


def with_the_tensor_forms(weights, gradient, lr):
    rank, n = dist.get_rank(), dist.get_world_size()
    mine = torch.empty_like(gradient.chunk(n)[rank])
    compat.reduce_scatter_single(mine, gradient)
    stepped = torch.empty_like(weights)
    compat.all_gather_single(stepped, weights.chunk(n)[rank] - lr * mine / n)
    return stepped


def test_a_step_of_stage_2_may_use_the_tensor_forms():
    assert check("sharded_step", with_the_tensor_forms).passed
