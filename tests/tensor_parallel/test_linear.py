"""Column and row linear, alone and as a pair, against the whole layers in one process; in float64, biases large."""

import torch
import torch.distributed as dist
from shared_tp import gathered, message, worlds
from torch import nn
from torch.nn.functional import gelu

from parallel_lab import launch
from parallel_lab.tensor_parallel import ColumnLinear, RowLinear, formulas
from parallel_lab.trace import recorder


def linear(inputs, outputs, seed, bias=True):
    layer = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return layer


def rows(requires_grad=True):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, 6, dtype=torch.float64, generator=generator).requires_grad_(requires_grad)


def off(a, b):
    return (a - b).abs().max().item()


def two_layers(group):
    """Distances of output, input gradient and every parameter's gradient; and what a pair sent."""
    first, second, whole_x, x = linear(6, 12, 2), linear(12, 6, 3), rows(), rows()
    right = second(gelu(first(whole_x)))
    right.sin().sum().backward()
    column, row = ColumnLinear(first, group=group), RowLinear(second, group=group)
    before = len(recorder().spans)
    y = row(gelu(column(x)))
    y.sin().sum().backward()
    sent = [(s.kind, s.phase, s.sent_bytes) for s in recorder().spans[before:]]
    pairs = [(y, right), (x.grad, whole_x.grad), (row.bias.grad, second.bias.grad)]
    for mine, whole in ((column, first), (row, second)):
        pairs += [
            (gathered(getattr(mine, name).grad, cut, group), getattr(whole, name).grad)
            for name, cut in mine.cuts.items()
        ]
    return max(off(a, b) for a, b in pairs), sent


def one_layer_whole(group):
    """A column linear that gathers its output, which all ranks use in the same way."""
    whole, x, whole_x = linear(6, 12, 4), rows(), rows()
    whole(whole_x).sin().sum().backward()
    column = ColumnLinear(whole, gather=True, group=group)
    y = column(x)
    y.sin().sum().backward()
    grad = gathered(column.weight.grad, column.cuts["weight"], group)
    return max(off(y, whole(whole_x)), off(x.grad, whole_x.grad), off(grad, whole.weight.grad))


def test_a_pair_and_a_gathered_column_are_the_layers_of_one_process():
    def fn():
        return {n: (*two_layers(g), one_layer_whole(g)) for n, g in worlds(1, 2, 3, 4) if g}

    size = 2 * 6 * 6 * 8
    for result in launch(fn, ranks=4).results:
        for n, (pair, sent, alone) in result.items():
            assert max(pair, alone) < 1e-11
            expected = [formulas.row_bytes(size, n).forward, formulas.column_bytes(size, n).backward]
            assert sent == list(zip(["all_reduce"] * 2, ["forward", "backward"], expected, strict=True))


def test_the_bias_of_a_row_linear_is_added_once():
    """A weight of zeros: what comes out is the bias, and not n times the bias."""

    def fn():
        layer = linear(6, 3, 5)
        nn.init.zeros_(layer.weight)
        y = RowLinear(layer)(torch.ones(4, 2, dtype=torch.float64))
        return torch.equal(y, layer.bias.expand(4, 3))

    assert all(launch(fn, ranks=3).results)


def test_what_is_frozen_stays_frozen_and_copies_are_of_one_part():
    def fn():
        layer = linear(6, 4, 6)
        layer.weight.requires_grad_(False)
        column = ColumnLinear(layer, copies=2)
        part = dist.get_rank() // 2
        same = torch.equal(column.weight, layer.weight[2 * part : 2 * part + 2])
        return same, column.weight.requires_grad, column.bias.requires_grad, repr(column)

    results = launch(fn, ranks=4).results
    assert results == [(True, False, True, "ColumnLinear(6 -> 2, one of 2 parts along dim 0)")] * 4


def test_what_does_not_divide_is_refused():
    def fn():
        return {
            "7 columns of the output do not divide by 2: nothing was cut": message(ColumnLinear, nn.Linear(6, 7)),
            "7 columns of the input do not divide by 2: nothing was cut": message(RowLinear, nn.Linear(7, 6)),
            "2 ranks in a group do not divide by 3": message(ColumnLinear, nn.Linear(6, 6), copies=3),
            "write ColumnLinear(linear, gather=..., ": message(ColumnLinear, nn.Linear(6, 6), True),
            "gather=True needs ranks with a part each": message(ColumnLinear, nn.Linear(6, 6), gather=True, copies=2),
        }

    for result in launch(fn, ranks=2).results:
        assert all(expected in found for expected, found in result.items()), result
