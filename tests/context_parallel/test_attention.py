"""Ring attention and Ulysses against one process in float64, with exact bytes, messages, work, and what is held.

Tolerance: 1e-12 on outputs and gradients of order 1 to 10; ranks add the same numbers up in another order.
"""

import sys

import pytest
import torch
import torch.distributed as dist
from shared_cp import apart, cut, drawn, one_process, over_ranks, worlds

from parallel_lab import launch
from parallel_lab.context_parallel import formulas, positions, ring_attention, shard_sequence, ulysses, unshard_sequence
from parallel_lab.context_parallel.ring_attention import _Ring
from parallel_lab.plan import SEND
from parallel_lab.runtime import rank_device
from parallel_lab.trace import recorder
from parallel_lab.trace.memory import live_bytes

pytestmark = pytest.mark.usefixtures("by_value")
SEQ, WIDTH, BATCH = 24, 5, 2  # 2 n divides it at 1, 2, 3 and 4 ranks
HEADS = [(4, 4), (4, 2), (4, 1), (6, 3), (12, 6)]  # query heads and key-value heads
TOLERANCE = 1e-12


def sent_by_passes(run):
    """What `run` returns, and the bytes and messages that this rank sent, by phase."""
    first = len(recorder().spans)
    made = run()
    spans = [span for span in recorder().spans[first:] if span.lane == SEND]
    count = {}
    for span in spans:
        phase = span.phase.split("/")[0].split(".")[0]
        bytes_, messages = count.get(phase, (0, 0))
        count[phase] = bytes_ + span.sent_bytes, messages + 1
    return made, count


def compared():
    found = []
    for n, group in worlds(1, 2, 3, 4):
        for heads, kv_heads in HEADS if group else ():
            whole = drawn(heads, kv_heads, SEQ, WIDTH, BATCH)
            deals = heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)
            for attention in (ring_attention, ulysses) if deals else (ring_attention,):
                for causal, zigzag in ((True, True), (True, False), (False, True), (False, False)):
                    right = one_process(*whole, causal)
                    how = {"causal": causal, "zigzag": zigzag, "group": group}
                    mine, sent = sent_by_passes(lambda: over_ranks(attention, *whole, **how))  # noqa: B023
                    off = apart(mine, [cut(each, zigzag=zigzag, group=group) for each in right])
                    found.append((attention.__name__, n, heads, kv_heads, causal, zigzag, off, sent))
    return found


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_is_attention_in_one_process_with_exact_bytes(device):
    """Forward and backward, causal or not, zig-zag or neighbors, grouped-query heads and copied ones."""
    found = [each for result in launch(compared, ranks=4, device=device, timeout=170).results for each in result]
    assert len([each for each in found if each[0] == "ulysses"]) > 60
    for name, n, heads, kv_heads, causal, zigzag, off, sent in found:
        case = name, n, heads, kv_heads, causal, zigzag
        assert off < TOLERANCE, (case, off)
        if name == "ulysses":
            expected = formulas.ulysses_bytes(BATCH, SEQ, heads, kv_heads, WIDTH, n, 8)
            messages = 2, 2
        else:
            shard = formulas.shard_bytes(BATCH, SEQ, kv_heads, WIDTH, n, 8)
            expected = formulas.ring_bytes(shard, n, 8)
            assert sum(expected) == 3 * (n - 1) * shard
            messages = n - 1, 2 * (n - 1)
        if name == "ulysses" or n > 1:
            pairs = dict(zip(("forward", "backward"), zip(expected, messages, strict=True), strict=True))
            assert sent == pairs, (case, sent, expected)


def test_closed_forms():
    shard = formulas.shard_bytes(2, 24, 4, 8, 4)
    assert shard == 2 * 2 * 6 * 4 * 8 * 4
    assert formulas.gather_bytes(shard, 4) == formulas.ring_bytes(shard, 4).forward == 3 * shard
    assert formulas.ring_bytes(shard, 4, 2).backward == 3 * shard + 3 * 2 * shard  # the sums of bfloat16 are float32
    for heads, kv_heads in ((8, 8), (8, 1), (32, 8)):  # the ratio that Ulysses' head gives
        n = 4
        ring = formulas.ring_bytes(formulas.shard_bytes(2, 24, kv_heads, 8, n), n).forward
        ulysses_bytes = formulas.ulysses_bytes(2, 24, heads, kv_heads, 8, n).forward
        held = max(kv_heads, n)
        assert ring / ulysses_bytes == pytest.approx(n * kv_heads / (heads + held))
    with pytest.raises(ValueError, match="25 tokens do not divide into 4 parts"):
        formulas.shard_bytes(2, 25, 4, 8, 4)


def test_a_zigzag_gives_every_rank_the_same_work():
    for n in (1, 2, 3, 4):
        pairs = 24 * 25 // 2
        assert [formulas.visible_pairs(24, rank, n) for rank in range(n)] == [pairs // n] * n
        plain = [formulas.visible_pairs(24, rank, n, zigzag=False) for rank in range(n)]
        length = 24 // n
        assert plain == [rank * length**2 + length * (length + 1) // 2 for rank in range(n)]
        assert sum(plain) == pairs
    assert plain == [21, 57, 93, 129]
    assert formulas.slowest_over_mean(24, 4, zigzag=False) == 1.72 and formulas.slowest_over_mean(24, 4) == 1
    assert formulas.slowest_over_mean(2**20, 4, zigzag=False) == pytest.approx(2 - 1 / 4, abs=1e-5)
    assert formulas.visible_pairs(24, 0, 4, causal=False) == 24 * 6


def rounds():
    """Which shards the ring brought to this rank, in their order; what a round computes; the buffers that were made."""
    made, init = [], _Ring.__init__

    def watched(self, mine, *args, **options):
        init(self, mine, *args, **options)
        made.append({each.untyped_storage().data_ptr(): each.nbytes for each in (self.held, self.coming)})

    _Ring.__init__ = watched
    first = len(recorder().spans)
    over_ranks(ring_attention, *drawn(4, 2, SEQ, WIDTH, BATCH))
    _Ring.__init__ = init
    return [(s.kind, s.part, s.round, s.phase) for s in recorder().spans[first:]], [sum(each.values()) for each in made]


def test_every_shard_comes_by_once_through_two_buffers():
    """n - 1 rounds; forward two buffers of a shard, backward two more of its gradients' sums."""
    n = 4
    shard = formulas.shard_bytes(BATCH, SEQ, 2, WIDTH, n, 8)
    for rank, (spans, buffers) in enumerate(launch(rounds, ranks=n).results):
        came = [(part, turn) for kind, part, turn, phase in spans if kind == "recv" and phase == "forward"]
        assert came == [((rank - turn - 1) % n, turn) for turn in range(n - 1)]
        home = [part for kind, part, _, phase in spans if kind == "recv_reduce"]
        assert home == [(rank - turn - 1) % n for turn in range(1, n)] and home[-1] == rank
        assert buffers == [formulas.ring_held_bytes(shard, n)] * 3  # forward; backward shards and sums


def held():
    """Bytes of all tensors made since the call, as each block of the forward pass begins."""
    module = sys.modules["parallel_lab.context_parallel.ring_attention"]
    leaves = [cut(each).clone() for each in drawn(4, 2, SEQ, WIDTH, BATCH)[:3]]
    attend, before, looks = module.attend, live_bytes(), []

    def watched(*args):
        looks.append(live_bytes() - before)
        return attend(*args)

    module.attend = watched
    module.ring_attention(*leaves)
    return looks


def test_a_rank_holds_two_shards_and_what_it_merges_into():
    """Measured: beyond its own query, key and value. An all-gather would hold 4 shards here."""
    n = 4
    shard, own = formulas.shard_bytes(BATCH, SEQ, 2, WIDTH, n, 8), BATCH * 4 * (SEQ // n) * 8
    for looks in launch(held, ranks=n).results:
        expected = [2 * shard, *[2 * shard + own * (WIDTH + 1)] * (n - 1)]  # then with output and log-sum-exp
        assert looks == pytest.approx(expected, abs=64)  # a message of an earlier run may go meanwhile


def numbers_that_would_overflow():
    """Scores x 200 in float32 and bfloat16: how far from float64's in one process, over the largest of these."""
    found = []
    for n, group in worlds(1, 2, 4, 8):
        for dtype in (torch.float32, torch.bfloat16) if group else ():
            narrow = drawn(2, 2, 32, 8, 1, dtype, scale=200.0)
            right = one_process(*(each.double() for each in narrow))
            mine, sent = sent_by_passes(lambda: over_ranks(ring_attention, *narrow, group=group))  # noqa: B023
            shard = formulas.shard_bytes(1, 32, 2, 8, n, dtype.itemsize)
            expected = formulas.ring_bytes(shard, n, dtype.itemsize)
            assert [bytes_ for bytes_, _ in sent.values()] == list(expected) * (n > 1)
            assert all(each.isfinite().all() and each.dtype is dtype for each in mine)
            off = [
                float((a - cut(b, group=group)).abs().max() / b.abs().max()) for a, b in zip(mine, right, strict=True)
            ]
            found.append((n, dtype, off))
    return found


def test_scores_of_thousands_and_16_bits_at_any_number_of_ranks():
    """The error is that of the dtype, and does not grow with the ranks; sums of 16-bit gradients travel in 32."""
    found = [each for result in launch(numbers_that_would_overflow, ranks=8).results for each in result]
    assert len(found) == 2 * (1 + 2 + 4 + 8)
    for n, dtype, off in found:
        assert max(off) < (1e-4 if dtype is torch.float32 else 1e-2), (n, dtype, off)


def sequences():
    """Positions of this rank, and the whole from the parts, whose gradients are parts of the whole's."""
    found = []
    for n, group in worlds(1, 2, 3, 4):
        for zigzag in (True, False) if group else ():
            x = torch.arange(2.0 * 24 * 3, device=rank_device()).view(2, 24, 3)
            mine = shard_sequence(x, zigzag=zigzag, group=group).requires_grad_()
            where = positions(24, zigzag=zigzag, group=group)
            assert torch.equal(mine, x[:, where]) and where.device == x.device
            whole = unshard_sequence(mine, zigzag=zigzag, group=group)
            whole.backward(x)
            assert torch.equal(whole, x) and torch.equal(mine.grad, mine)
            found.append((n, zigzag, where.tolist()))
    return found


def test_a_rank_has_an_early_and_a_late_chunk():
    results = launch(sequences, ranks=4).results
    by_case = {(n, zigzag, rank): where for rank, found in enumerate(results) for n, zigzag, where in found}
    assert by_case[4, True, 1] == [3, 4, 5, 18, 19, 20] and by_case[4, True, 3] == list(range(9, 15))
    assert by_case[4, False, 1] == list(range(6, 12)) and by_case[1, True, 0] == list(range(24))
    for n, zigzag in {case[:2] for case in by_case}:
        assert sorted(place for rank in range(n) for place in by_case[n, zigzag, rank]) == list(range(24))


def early_and_late():
    """What a rank that forgot the zig-zag computes: its late chunk as if it stood right behind the early one."""
    whole = drawn(2, 2, SEQ)
    right = [cut(each) for each in one_process(*whole)]
    leaves = [cut(each).clone() for each in whole[:3]]
    return dist.get_rank(), apart([ring_attention(*leaves, zigzag=False)], right[:1])


def test_a_forgotten_zigzag_is_wrong_on_every_rank():
    """The test of parity can fail."""
    for _, off in launch(early_and_late, ranks=2).results:
        assert off > 0.1
