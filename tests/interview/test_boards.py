"""The whiteboard: what a schedule, a layout and lines of code are answered with, right and wrong, in both languages."""

import re

import pytest

from parallel_lab.interview.board_layout import layout_of
from parallel_lab.interview.board_ranks import alone
from parallel_lab.interview.board_schedule import plan_of
from parallel_lab.interview.boards import CODE, EXAMPLES, SCHEDULE, Board, answered, whiteboard
from parallel_lab.network import Link
from parallel_lab.pipeline import gpipe, one_f_one_b, zb_h1
from parallel_lab.plan import to_grid


def number(pattern, text):
    return float(re.search(pattern, text)[1])


@pytest.mark.parametrize(("p", "m"), [(2, 3), (4, 8)])
def test_gpipe_takes_as_long_as_1f1b_and_holds_more(p, m):
    found = answered(to_grid(gpipe(p, m)))
    text = repr(found)
    assert found.passed and f"take {3 * (m + p - 1)} units" in text and "yours takes 1× that time" in text
    held = [line.split()[1:] for line in text.splitlines() if re.fullmatch(r"\s*\d+\s+\d+\s+\d+", line)]
    assert held == [[str(m), str(min(p - rank, m))] for rank in range(p)]
    assert number(r"([\d.]+) % of all ranks' time is idle", text) == pytest.approx(
        100 * (p - 1) / (m + p - 1), abs=0.05
    )


def test_rows_stand_on_lines_or_between_strokes_with_or_without_labels():
    plans = [plan_of(text) for text in (SCHEDULE, SCHEDULE.replace("\n", " / "), to_grid(one_f_one_b(2, 2)))]
    assert {plan.rows for plan in plans} == {one_f_one_b(2, 2).rows}


def test_a_split_backward_is_a_schedule_too_and_real_ranks_carry_it_out():
    found = answered(to_grid(zb_h1(2, 3)), run=True)
    assert found.passed and number(r"largest difference ([\d.e-]+)\)", repr(found)) < 1e-12
    assert "6 messages" in repr(found)  # 3 microbatches over one cut, there and back
    assert 'src="data:image/png;base64,' in found._repr_html_()


def test_the_chain_in_one_process_has_a_gradient_for_each_stage():
    loss, gradients = alone(3, 2)
    assert loss > 0 and set(gradients) == {0, 1, 2} and all(one.abs().sum() > 0 for one in gradients.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0 0F1 0B0 0B1 / 1F0 1B0 1B1 1F1", "this plan can never finish: rank 1 waits at 1B1"),
        ("0F0 0F1 0B0", "stage 0 has F of microbatch 1: expected F and B"),
        ("0F0 oops", "'oops' is no step"),
        ("0F0 0F0 0B0", "stands 2 times"),
        ("0F0 0B0 / 2F0 2B0", "stage 1 has no pass"),
        ("0send0>1 / 1F0 1B0", "rank 0 sends 0send0>1, and rank 1 never receives it"),
        ("rank 1: 0F0", "rows stand in rank order"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_shown(text, said):
    found = answered(text, language="zh")
    assert not found.passed and found.trace is None and said in repr(found) and "无法执行" in repr(found)


def test_messages_alone_take_a_unit_each():
    found = answered("0send0>1 / 0recv0<0")
    assert found.passed and found.trace.duration_s == 1 and "0send0>1" in repr(found)


def test_more_ranks_than_a_board_carries_out():
    text = repr(answered(to_grid(one_f_one_b(9, 2)), run=True))
    assert "at most 8 ranks" in text


def test_stages_that_share_ranks_have_no_1f1b_beside_them():
    text = repr(answered("0F0 1F0 1B0 0B0", language="zh"))
    assert "模拟结果：1 个 rank、2 个阶段" in text and "1F1B" not in text


def test_a_layout_is_priced_and_stands_beside_the_best():
    found = answered(EXAMPLES["layout"] + " batch=512 recompute=selective")
    text = repr(found)
    assert found.passed and "512 sequences a step" in text and "recompute selective" in text
    assert number(r"Your step takes ([\d.]+) times as long", text) >= 1
    assert "nothing was run" in text


def test_a_layout_that_does_not_fit():
    found = answered("llama3-70b on 8 h100-ib: tp=8", language="zh")
    assert not found.passed and "规划器没有找到放得下的布局" in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama3-8b on 64 h100-ib: tp=8 pp=2 dp=3", "makes 48 ranks, and h100-ib has 64"),
        ("llama3-9b on 64 h100-ib: tp=8", "did you mean llama3-8b"),
        ("llama3-8b on 64 h100-eb: tp=8", "no cluster 'h100-eb'"),
        ("llama3-8b on 64 h100-ib: tq=8", "'tq=8': expected batch, seq, pp"),
        ("llama3-8b on 64 h100-ib: tp", "each as in tp=8"),
        ("llama3-8b on 64 h100-ib: tp=eight", "expected a whole number"),
        ("llama3-8b on 64 h100-ib: tp=8 batch=0", "'batch=0': expected a whole number above 0"),
        ("llama3-8b on 0 h100-ib: tp=8", "no layout on 0 accelerators"),
        ("llama3-8b on 64 h100-ib: tp=8 batch=3", "does not divide"),
        ("llama3-8b on 64 h100-ib: tp=8 zero=9", "zero=9"),
    ],
)
def test_what_is_wrong_with_a_layout_is_a_sentence(text, said):
    found = answered(text)
    assert not found.passed and said in repr(found)


def test_what_a_layout_leaves_open():
    layout = layout_of("llama3-8b on 16 h100-ib: tp = 4, sequence_parallel=no seq=4096")
    assert (layout.scheme.tp, layout.scheme.dp, layout.scheme.sequence_parallel) == (4, 4, False)
    assert layout.batch * layout.shape.seq == 2**22
    assert layout_of("llama3-8b 在 4 张 h100-ib：tp=4").cluster.gpus_per_node == 4
    with pytest.raises(ValueError, match="is no layout: write"):
        layout_of("a poem")


def test_lines_are_carried_out_by_real_ranks():
    found = answered(f"print('at', rank)\n{CODE}", ranks=3, link=Link(1e-5, 1e9))
    text = repr(found)
    assert found.passed and text.count("tensor([6.])") == 3 and "[rank 2] at 2" in text
    assert found.trace.ranks == 3 and "Recorded from the real ranks" in text


def test_a_function_is_carried_out_too(by_value):
    def fn():
        return "done"

    found = whiteboard(fn, ranks=2, language="zh")
    assert found.passed and repr(found).count("done") == 2 and "真实 rank 的记录" not in repr(found)


def test_what_is_wrong_with_code_is_said():
    assert "line 1" in repr(answered("x = = 1")) and "invalid syntax" in repr(answered("x = = 1"))
    found = answered("x = torch.ones(2)\nif rank:\n    dist.broadcast(x, 0)\nx", ranks=2)
    assert not found.passed and "rank 0 returned; rank 1 waits for it in broadcast" in repr(found)
    failed = answered("print('before')\n1 / 0", ranks=2, language="zh")
    assert (
        "ZeroDivisionError" in repr(failed) and "[rank 0] before" in repr(failed) and "rank 没有运行完" in repr(failed)
    )


def test_what_no_board_answers():
    with pytest.raises(ValueError, match="The board is empty"):
        whiteboard("  ")
    with pytest.raises(ValueError, match="'garbage' is no schedule, no layout and no code"):
        whiteboard("garbage")
    with pytest.raises(ValueError, match="白板可以用 1 到 8 个 rank"):
        whiteboard(CODE, ranks=9, language="zh")
    with pytest.raises(TypeError, match="takes text or a function"):
        whiteboard(3)


def test_the_form_answers_what_is_written(by_kind):
    form = whiteboard(language="zh").form()
    (area,), (answer, real), said = by_kind(form, "Textarea"), by_kind(form, "Button"), form.children[-1]
    answer.click()
    assert "白板是空的" in said.value
    area.value = SCHEDULE
    answer.click()
    assert "这个调度可以执行" in said.value and "由 2 个真实的 rank 执行" not in said.value
    real.click()
    assert "由 2 个真实的 rank 执行" in said.value


def test_the_page_has_an_example_of_each_kind():
    page = Board()
    assert all(text in repr(page) for text in EXAMPLES.values())
    assert "text/html" in page._repr_mimebundle_() and "plab whiteboard" in repr(page)
