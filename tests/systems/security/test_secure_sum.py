"""Masked sums are exact on ranks, with a rank lost too; rows look random; a lie about a dropout reads one mask only."""

import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.security import secure_sum, shamir

pytestmark = pytest.mark.usefixtures("by_value")
D = 5000


def _values(rank):
    return torch.randn(D, generator=torch.Generator().manual_seed(rank)) * 10.0 ** (rank - 2)


def test_sums_over_ranks_are_exact_and_rows_look_random():
    def fn():
        rank = dist.get_rank()
        groups = {n: dist.new_group(list(range(n))) for n in (1, 2, 3)}
        found = {n: secure_sum.all_reduce(_values(rank), group=g) for n, g in groups.items() if rank < n}
        found[4] = secure_sum.all_reduce(_values(rank).view(50, 100)).flatten()
        whole = secure_sum.sum_at_server(_values(rank), threshold=3)
        return found, whole[0], secure_sum.sum_at_server(_values(rank), threshold=3, lost=rank == 1)

    results = launch(fn, ranks=4).results
    for rank, (found, whole, (partial, rows)) in enumerate(results):
        for n, total in {**found, 4: whole}.items():
            wanted = sum(secure_sum.to_whole(_values(r)) for r in range(n))
            assert torch.equal(total, secure_sum.to_real(wanted)), (rank, n)
        assert torch.equal(partial, secure_sum.to_real(sum(secure_sum.to_whole(_values(r)) for r in (0, 2, 3))))
        assert sorted(rows) == ([0, 2, 3] if rank == 0 else [])
    for row in results[0][2][1].values():
        ones = torch.stack([(row >> bit & 1).double().mean() for bit in range(64)])
        assert bool(((ones - 0.5).abs() < 6 * 0.5 / D**0.5).all()), "each of the 64 bits is 1 half of the time"


def _round(n, threshold, own=True):
    parties = [secure_sum.Party(number, n, threshold) for number in range(n)]
    publics = {each.number: each.public for each in parties}
    for each in parties:
        for holder, share in zip(parties, each.shares(), strict=True):
            holder.held[each.number] = share
    values = [secure_sum.to_whole(_values(number)) for number in range(n)]
    rows = {p.number: p.masked(values[p.number], publics, own) for p in parties}
    return parties, publics, values, rows


def test_a_server_that_lies_about_a_dropout_reads_a_row_with_one_mask_and_not_with_two():
    for own in (False, True):
        parties, publics, values, rows = _round(5, 3, own)
        there = [0, 1, 3, 4]  # 2 is said to be gone, though its row came
        revealed = {k: parties[k].reveal(there) for k in there}
        key = shamir.join({k + 1: given[2] for k, given in revealed.items()})
        private = secure_sum.X25519PrivateKey.from_private_bytes(key)
        read = rows[2] - secure_sum.pair_masks(2, private, publics, D)
        assert torch.equal(read, values[2]) is not own
        with pytest.raises(ValueError, match="answers once"):
            parties[0].reveal([0, 1, 2, 3])


def test_too_few_survivors_give_nothing():
    parties, publics, _, rows = _round(5, 4)
    with pytest.raises(ValueError, match="4 parties or more"):
        parties[0].reveal([0, 1, 2])
    revealed = {k: parties[k].reveal([0, 1, 2, 3]) for k in (0, 1, 2)}  # the fourth does not answer
    with pytest.raises(ValueError, match="no secret"):
        secure_sum.unmask({k: rows[k] for k in range(4)}, publics, revealed)
    with pytest.raises(ValueError, match="more than half"):
        secure_sum.Party(0, 4, 2)


def test_a_lying_rank_moves_the_sum_and_nobody_sees_who():
    parties, publics, values, _ = _round(4, 3)
    values[2] = secure_sum.to_whole(torch.full((D,), -1000.0))
    rows = {p.number: p.masked(values[p.number], publics) for p in parties}
    revealed = {k: parties[k].reveal(range(4)) for k in range(4)}
    total = secure_sum.to_real(secure_sum.unmask(rows, publics, revealed))
    assert float(total.mean()) < -900
    norms = [float(row.double().norm()) for row in rows.values()]
    assert max(norms) / min(norms) < 1.1, "the liar's row is as large as any other"


def test_shares():
    secret = bytes(range(32))
    shares = shamir.split(secret, 5, 3)
    assert shamir.join({x: shares[x] for x in (5, 1, 3)}) == secret == shamir.join(shares)
    for few in ({1: shares[1], 2: shares[2]}, {1: shares[1]}):
        with pytest.raises(ValueError, match="too few"):
            shamir.join(few)
    with pytest.raises(ValueError, match="expected 32 bytes"):
        shamir.split(b"short", 5, 3)
    with pytest.raises(ValueError, match="1 <= threshold <= shares"):
        shamir.split(secret, 2, 3)


def test_numbers_that_do_not_fit_are_refused():
    for wrong in (float("nan"), float("inf"), 2.0**40):
        with pytest.raises(ValueError, match="not finite, or too large"):
            secure_sum.to_whole(torch.tensor([wrong]))
    assert secure_sum.to_real(secure_sum.to_whole(torch.tensor([-1.25, 2.0**-24]))).tolist() == [-1.25, 2.0**-24]
