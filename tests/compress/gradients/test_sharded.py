"""Zero3 with quantized collectives: bytes against the closed form, what rounding costs at most, exact checkpoints."""

import pytest
import torch
import torch.distributed as dist
from shared_gradients import build, one_step, worlds
from torch import nn

from parallel_lab import launch
from parallel_lab.compress.gradients import Quantized, TwoHops
from parallel_lab.data_parallel import Zero3, checkpoint
from parallel_lab.runtime import make_mesh
from parallel_lab.trace import recorder

LIMIT = 1.05
FLAG_BYTES = 8  # Zero3's ranks agree that gradients are finite: one number, all-reduced


def quantized(node, **settings):
    """In two hops among four ranks, so many of them a node; in one hop without nodes."""
    if not node:
        return Quantized(**settings)
    mesh = make_mesh(**{f"nodes{node}": 4 // node, f"places{node}": node})
    return TwoHops(mesh[f"places{node}"].get_group(), mesh[f"nodes{node}"].get_group(), **settings)


@pytest.fixture(scope="module")
def ran():
    def fn():
        found = {}
        for n, group in worlds(1, 2, 3, 4):
            for bits in ((8, 4), (8, 8), (None, 4), (4, None), (None, None)):
                node = 2 if n == 4 and bits == (8, 8) else 0
                how = quantized(node, weight_bits=bits[0], gradient_bits=bits[1], block=64)
                zero = Zero3(build(), exchange=how, group=group)
                optimizer = torch.optim.SGD(zero.parameters(), 0.05)
                one_step(zero, optimizer, 0)
                before = recorder().sent_bytes
                one_step(zero, optimizer, 1)
                sent, expected = recorder().sent_bytes - before, 0
                for unit in zero.units:
                    elements = n * sum(unit.chunks)
                    gathers = 2 if unit.module is not zero.module else 1
                    expected += gathers * how.sent_bytes(elements, n) + how.sent_bytes(elements, n, gradients=True)
                own = torch.cat([p.detach().flatten() for p in zero.parameters()])
                whole = torch.cat([v.flatten() for v in zero.full_state_dict().values()])
                found[n, bits] = sent, expected, own, whole
        return found

    return launch(fn, ranks=4, timeout=120).results


def test_bytes_are_those_of_the_formula(ran):
    for found in ran:
        for (n, bits), (sent, expected, *_) in found.items():
            assert expected - 20 <= sent <= expected * LIMIT + FLAG_BYTES, (n, bits)


def test_two_hops_sum_as_one_and_leave_the_node_with_less():
    """Nodes of two neighbors. In two hops one row leaves a rank's node, where two did."""

    def fn():
        group, rank = dist.group.WORLD, dist.get_rank()
        flat = torch.randn(4 * 100, generator=torch.Generator().manual_seed(rank))
        found = {}
        for node in (0, 1, 2, 4):
            how, mine = quantized(node, gradient_bits=8, block=32), torch.empty(100)
            before = recorder().sent_bytes
            how.reduce_scatter(mine, flat, group).wait()
            found[node] = mine, recorder().sent_bytes - before, how.sent_bytes(400, 4, gradients=True)
        plain = torch.empty(100)
        Quantized(gradient_bits=None).reduce_scatter(plain, flat, group).wait()
        return found, plain

    run = launch(fn, ranks=4, timeout=60)
    for rank, (found, plain) in enumerate(run.results):
        for node, (mine, sent, expected) in found.items():
            assert sent == expected and (mine - plain).abs().max() < 0.1, node
        assert found[2][1] == found[0][1] and not torch.equal(found[2][0], found[0][0])
        left = [s.sent_bytes for s in run.trace.of(rank) if s.axis == "nodes2"]
        assert left == [100 + 4 * 4]  # codes and scales of one row


def test_hops_are_of_the_ranks_that_share():
    def fn():
        flat = torch.ones(9)
        pair = dist.new_group([0, 1]), dist.group.WORLD
        TwoHops(*pair).reduce_scatter(flat[:3].clone(), flat, dist.group.WORLD)

    with pytest.raises(RuntimeError, match=r"hops among .* ranks and 3 nodes, and 3 ranks share the model"):
        launch(fn, ranks=3, timeout=60)


def test_eight_and_four_bits_send_a_quarter_and_an_eighth_of_float32():
    how, plain = Quantized(), Quantized(weight_bits=None, gradient_bits=None)
    for n in (2, 8):
        size = 4096 * n
        assert how.sent_bytes(size, n) == plain.sent_bytes(size, n) / 4 + (n - 1) * 4 * 16
        assert how.sent_bytes(size, n, gradients=True) == plain.sent_bytes(size, n) / 8 + (n - 1) * 4 * 16


def test_weights_are_near_those_of_plain_zero3_and_saved_exactly(ran):
    """A step changes a weight by lr times its gradient: quantized gradients are off by half a level at most."""
    for found in ran:
        for (n, bits), (*_, whole) in found.items():
            plain = found[n, (None, None)][-1]
            off = (whole - plain).abs().max().item()
            assert off < (5e-3 if 4 in bits else 5e-4) and (off > 0) == (bits != (None, None)), (n, bits, off)
    for n in (1, 2, 3, 4):
        for bits in ((8, 4), (4, None)):
            wholes = [found[n, bits][-1] for found in ran[:n]]
            owned = torch.cat([found[n, bits][2] for found in ran[:n]])
            assert all(torch.equal(wholes[0], each) for each in wholes)
            assert torch.equal(owned.sort().values, wholes[0].sort().values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_is_decoded_is_off_by_half_a_level(bits):
    how = Quantized(block=32)
    for size in (1, 31, 32, 100):
        rows = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
        back = how.decode(how.encode(rows, bits), bits, size)
        for row, decoded in zip(rows, back, strict=True):
            for block, other in zip(row.split(32), decoded.split(32), strict=True):
                level = block.abs().max() / (2 ** (bits - 1) - 1)
                assert (block - other).abs().max() <= level / 2 * (1 + 1e-5)
    assert not how.decode(how.encode(torch.zeros(5), bits), bits, 5).any()


def test_whole_numbers_travel_as_they_are():
    def fn():
        mine = torch.tensor([dist.get_rank() + 1000])
        flat, how = torch.empty(2, dtype=torch.int64), Quantized()
        how.all_gather(flat, mine, dist.group.WORLD).wait()
        how.reduce_scatter(mine, flat, dist.group.WORLD).wait()
        return flat.tolist(), mine.item()

    assert launch(fn, ranks=2).results == [([1000, 1001], 2000), ([1000, 1001], 2002)]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="3 bits: expected one of"):
        Quantized(gradient_bits=3)
    with pytest.raises(ValueError, match="block=0"):
        Quantized(block=0)


def test_nan_is_refused_on_the_rank_that_has_it():
    def fn():
        zero = Zero3(nn.Sequential(nn.Linear(4, 4)), exchange=Quantized())
        zero(torch.full((2, 4), float("nan") if dist.get_rank() == 1 else 1.0)).sum().backward()

    with pytest.raises(RuntimeError, match=r"rank 1: the gradient of .* is NaN or infinite"):
        launch(fn, ranks=2, timeout=60)


def broken_off():
    how = Quantized()
    zero = Zero3(build(), exchange=how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "copied", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            zero.full_state_dict()
    return zero.exchange is how


def test_an_error_while_the_whole_is_gathered_leaves_training_as_it_was():
    assert launch(broken_off, ranks=2).results == [True, True]
