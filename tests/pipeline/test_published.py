"""Table 5 of Zero Bubble from the times of its table 6: schedule, messages and simulator together."""

from sweeps import plan_of

from parallel_lab.pipeline import with_messages
from parallel_lab.pipeline.published import zero_bubble_table
from parallel_lab.simulate import simulate


def test_all_twelve_rows_agree_to_four_decimals():
    table = zero_bubble_table()
    assert len(table) == 12 and {tuple(row.rates) for row in table} == {("one_f_one_b", "zb_h1", "zb_h2")}
    found = [
        {
            name: round(simulate(with_messages(plan_of(name, row.p, row.m)), row.cost).bubble(own=True), 4)
            for name in row.rates
        }
        for row in table
    ]
    assert found == [row.rates for row in table]
