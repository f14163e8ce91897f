"""Distributed products: right at any sizes, with the words of the closed form, never below the lower bound."""

import gc
import re
from contextlib import contextmanager
from math import prod

import pytest
import torch
import torch.distributed as dist

from parallel_lab import Link, RankFailed, launch
from parallel_lab.plan import check_plan
from parallel_lab.runtime import rank_device
from parallel_lab.simulate import AlphaBeta, simulate
from parallel_lab.tensor_parallel import matmul
from parallel_lab.tensor_parallel.matmul_formulas import (
    ALGORITHMS,
    best_grid,
    held_words,
    lower_bound,
    matmul_words,
    message_words,
    padded,
)
from parallel_lab.tensor_parallel.matmul_plan import plan
from parallel_lab.trace import Trace, recorder
from parallel_lab.trace.memory import storages

pytestmark = pytest.mark.usefixtures("by_value")
SQUARE, ODD, TALL, FLAT = (24, 24, 24), (7, 5, 9), (96, 8, 8), (32, 4, 32)
GRIDS = {
    1: [("one_d", (1, 1, 1)), ("summa", (1, 1, 1)), ("two_five_d", (1, 1, 1)), ("three_d", (1, 1, 1))],
    2: [("one_d", (2, 1, 1)), ("summa", (1, 2, 1)), ("two_five_d", (1, 1, 2)), ("three_d", (2, 1, 1))],
    3: [("one_d", (3, 1, 1)), ("summa", (3, 1, 1)), ("three_d", (1, 1, 3))],
    4: [("one_d", (4, 1, 1)), ("summa", (2, 2, 1)), ("two_five_d", (2, 1, 2)), ("three_d", (1, 2, 2))],
    6: [("summa", (2, 3, 1)), ("summa", (3, 2, 1)), ("three_d", (3, 1, 2))],
    8: [
        ("one_d", (8, 1, 1)),
        ("summa", (2, 4, 1)),
        ("summa", (4, 2, 1)),
        ("two_five_d", (2, 2, 2)),
        ("three_d", (2, 2, 2)),
        ("three_d", (4, 1, 2)),
    ],
}


def matrices(rows, inner, cols, dtype=torch.float64):
    dice = torch.Generator().manual_seed(rows + inner + cols)
    shapes = (rows, inner), (inner, cols)
    return [torch.randn(shape, dtype=dtype, generator=dice).to(rank_device()) for shape in shapes]


def product(name, grid, sizes):
    """How far C is from one process's, and the bytes and spans of the product alone."""
    a, b = matrices(*sizes)
    mesh = matmul.grid(*grid)
    mine = matmul.cut(a, b, mesh)
    before, first = recorder().sent_bytes, len(recorder().spans)
    c = getattr(matmul, name)(*mine, mesh)
    sent, spans = recorder().sent_bytes - before, recorder().spans[first:]
    whole = matmul.join(c, mesh, sizes[0], sizes[2])
    return (whole - a @ b).abs().max().item(), sent, spans


def products(cases):
    return {case: product(*case) for case in cases}


ON_A_GPU = pytest.param(4, "cuda", marks=pytest.mark.gpu)


@pytest.mark.parametrize(("ranks", "device"), [*((ranks, "cpu") for ranks in GRIDS), ON_A_GPU])
def test_is_the_product_and_sends_the_closed_form(ranks, device):
    """Sizes that no grid divides are padded, and the closed form is that of the padded sizes."""
    cases = [(name, grid, sizes) for name, grid in GRIDS[ranks] for sizes in (SQUARE, ODD)]
    results = launch(products, cases, ranks=ranks, device=device).results
    for case in cases:
        _, grid, sizes = case
        apart, sent, _ = zip(*(result[case] for result in results), strict=True)
        assert max(apart) < 1e-12, case
        assert set(sent) == {8 * matmul_words(sizes, grid)}, case
        assert sent[0] >= 8 * lower_bound(padded(sizes, grid), ranks), case


def test_the_lower_bound_is_met_to_the_byte():
    """By the algorithm of as many dimensions as there are long sizes; the others are above it."""
    cases = [
        ("three_d", (2, 2, 2), SQUARE),
        ("two_five_d", (2, 2, 2), SQUARE),
        ("one_d", (8, 1, 1), TALL),
        ("summa", (2, 4, 1), FLAT),
    ]
    results = launch(products, cases, ranks=8).results
    sent = {case: {result[case][1] for result in results} for case in cases}
    for name, grid, sizes in cases[:3]:
        assert sent[name, grid, sizes] == {8 * lower_bound(sizes, 8)}, name
    assert 8 * lower_bound(SQUARE, 8) == 0.375 * 8 * 24**2
    assert sent[cases[3]] == {8 * matmul_words(FLAT, (2, 4, 1))}
    for sizes, best in ((SQUARE, (2, 2, 2)), (TALL, (8, 1, 1)), (FLAT, (4, 2, 1))):
        assert best_grid(sizes, 8) == best
    assert lower_bound(FLAT, 4) == matmul_words(FLAT, (2, 2, 1)), "with one short size, 2-D meets it on a square grid"


def test_closed_forms_of_square_matrices():
    n, size = 48, 48**2
    for q in (1, 2, 4):
        assert matmul_words((n, n, n), (q * q, 1, 1)) == (q * q - 1) * size // (q * q)
        assert matmul_words((n, n, n), (q, q, 1)) == 2 * (q - 1) * size // (q * q)
        assert matmul_words((n, n, n), (q, q, 2)) == (2 * (q - 1) + 1) * size // (2 * q * q)
        assert matmul_words((n, n, n), (q, q, q)) == 3 * (q - 1) * size // q**3 == lower_bound((n, n, n), q**3)
    assert lower_bound((n, n, n), 4) / size == pytest.approx(0.4406, abs=1e-4)


def least_touched(sizes, ranks):
    """The least x + y + z, searched, with x y z >= (products of a rank)^2 and each at least a rank's own share."""
    rows, inner, cols = sizes
    least = [rows * inner / ranks, inner * cols / ranks, rows * cols / ranks]
    need = (rows * inner * cols / ranks) ** 2
    x, y = (share * torch.logspace(0, 6, 601, base=2, dtype=torch.float64) for share in sorted(least)[:2])
    z = (need / (x[:, None] * y)).clamp(min=max(least))
    return float((x[:, None] + y + z).min())


@pytest.mark.parametrize("sizes", [(960, 24, 24), (96, 12, 96), (48, 96, 24), (60, 60, 60), (8, 8, 640)])
def test_no_grid_is_below_the_lower_bound(sizes):
    """Whose three cases are what a search finds, by Loomis and Whitney's inequality alone."""
    rows, inner, cols = sizes
    for ranks in (1, 2, 4, 8, 12, 24, 40, 64):
        bound, grid = lower_bound(sizes, ranks), best_grid(sizes, ranks)
        owned = (rows * inner + inner * cols + rows * cols) / ranks
        assert bound + owned == pytest.approx(least_touched(sizes, ranks), rel=1e-3)
        assert prod(grid) == ranks
        assert matmul_words(sizes, grid) >= lower_bound(padded(sizes, grid), ranks) - 1e-9


def test_a_run_is_its_plan():
    """Each rank has the messages and the products of its row; the k-th product of the run is numbered alike."""
    cases = [(name, grid, SQUARE) for name, grid in GRIDS[8][:5]]

    def alone():
        return [product(*case)[2] for case in cases]

    numbered = re.compile(r"\.\d+$")  # of the second collective with the same names in this launch
    results = launch(alone, ranks=8).results
    for place, (name, grid, _) in enumerate(cases):
        spans = [span for result in results for span in result[place]]
        found = Trace(8, tuple(span._replace(phase=numbered.sub("", span.phase)) for span in spans)).plan()
        expected = plan(name, *grid)
        check_plan(expected)
        for ours, row in zip(found.rows, expected.rows, strict=True):
            assert sorted(ours) == sorted(row), name
            assert [op for op in ours if op.kind == "product"] == [op for op in row if op.kind == "product"]


@pytest.mark.parametrize("sizes", [SQUARE, (48, 36, 24)])
@pytest.mark.parametrize(("name", "grid"), [case for cases in GRIDS.values() for case in cases])
def test_the_plan_sends_the_closed_form_too(name, grid, sizes):
    words = message_words(sizes, grid, name)
    simulated = simulate(plan(name, *grid), AlphaBeta.over(Link(1e-6, 1e9), words, compute_s=1e-6))
    assert {simulated.bytes_sent(rank) for rank in range(prod(grid))} == {matmul_words(sizes, grid)}


def most_held(cases):
    """The most words that this rank held when a product was over, in each case; blocks are its own, not views."""
    found, own_span = {}, matmul.span
    for name, grid, sizes in cases:
        mesh = matmul.grid(*grid)
        own = matmul.cut(*matrices(*sizes), mesh)
        gc.freeze()  # what lives now is not counted
        most = found[name, grid] = [0]

        @contextmanager
        def looking(*what, most=most, own=own, **names):
            with own_span(*what, **names):
                yield
            gc.collect()
            new = [each for each in gc.get_objects() if type(each) is torch.Tensor]
            most[0] = max(most[0], sum(storages([*own, *new]).values()) // 8)

        matmul.span = looking
        getattr(matmul, name)(*own, mesh)
    return found


def test_a_rank_holds_what_the_closed_form_says():
    cases = [(name, grid, (96, 48, 96)) for name, grid in GRIDS[8]]
    for held in launch(most_held, cases, ranks=8, timeout=120).results:
        for name, grid, sizes in cases:
            most = held_words(sizes, grid, name)
            # On an axis of one rank, a panel that has not to travel is a view of the block.
            least = most if name == "one_d" or min(grid[:2]) > 1 else most - 1000
            assert least <= held[name, grid][0] <= most, (name, grid)


def test_more_layers_send_less_and_hold_more():
    """64 ranks, simulated sizes: what 2.5-D trades. Panels hold less than whole blocks."""
    n = 4096
    grids = [(8, 8, 1), (4, 4, 4)]
    sent = [matmul_words((n, n, n), grid) / n**2 for grid in grids]
    held = [held_words((n, n, n), grid, "two_five_d") / n**2 for grid in grids]
    assert sent == [14 / 64, 9 / 64] and held[0] < held[1]
    assert held_words((n, n, n), (4, 4, 4), "two_five_d") < held_words((n, n, n), (4, 4, 4), "three_d")
    assert held_words((n, n, n), (4, 4, 4), "three_d") == n * n * (2 / 64 + 3 / 16)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: matmul_words((0, 4, 4), (1, 1, 1)), "each at least 1"),
        (lambda: padded((4, 4), (1, 1, 1)), "rows, inner and cols"),
        (lambda: matmul_words((4, 4, 4), (2, 0, 1)), "ranks along i, j and k"),
        (lambda: lower_bound((4, 4, 4), 0), "ranks=0"),
        (lambda: best_grid((4, 4, 4), 0), "ranks=0"),
        (lambda: held_words((4, 4, 4), (1, 1, 1), "cannon"), "expected one of one_d, summa"),
        (lambda: plan("cannon"), "expected one of one_d, summa"),
        (lambda: plan("one_d", 2, 2), "one_d has j=k=1"),
        (lambda: plan("summa", 2, 2, 2), "summa has k=1"),
    ],
)
def test_formulas_and_plans_refuse_what_makes_no_sense(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_refusals_of_products():
    """Each before anything is sent, with a sentence that says what to do."""

    def refused():
        mesh, said = matmul.grid(i=2, j=2), []
        a, b = matmul.cut(*matrices(*SQUARE), mesh)
        for call in (
            lambda: matmul.one_d(a, b, mesh),
            lambda: matmul.summa(a[:, 1:], b, mesh),
            lambda: matmul.summa(a, b.float(), mesh),
            lambda: matmul.summa(a.clone().requires_grad_(), b, mesh),
            lambda: matmul.grid(i=3),
        ):
            with pytest.raises(ValueError) as error:
                call()
            said.append(str(error.value))
        return said

    for rank, said in enumerate(launch(refused, ranks=4).results):
        assert said[0] == (
            f"rank {rank}: one_d got a grid of 2 x 2 x 1: it is for j=1 and k=1; two_five_d and three_d take any grid"
        )
        assert said[1].startswith(f"rank {rank}: blocks x of 12 x 11 and w of 12 x 12 do not fit a grid of 2 x 2 x 1")
        assert "torch.float64 on cpu and torch.float32 on cpu" in said[2]
        assert "no backward pass" in said[3] and "but there are 4" in said[4]


def test_another_matrix_on_one_rank_is_named():
    def odd_one():
        matmul.cut(*matrices(*(ODD if dist.get_rank() == 2 else SQUARE)), matmul.grid(i=2, j=2))

    with pytest.raises(RankFailed, match=r"rank 2 has x of 7 x 5 .*most ranks have x of 24 x 24") as error:
        launch(odd_one, ranks=4, echo=False)
    assert error.value.rank == 2


def test_no_product_of_these():
    def wrong():
        matmul.cut(torch.ones(3, 4), torch.ones(5, 6), matmul.grid(i=1))

    with pytest.raises(RankFailed, match=r"x of 3 x 4 and w of 5 x 6 .*expected \(rows, inner\) and \(inner, cols\)"):
        launch(wrong, ranks=1, echo=False)


def test_every_algorithm_is_tested():
    assert {name for cases in GRIDS.values() for name, _ in cases} == set(ALGORITHMS)
