"""Rotary positions against the definition: pair by pair, and only the distance counts."""

import math

import pytest
import torch

from parallel_lab.model.rotary import rotate


def by_hand(x: torch.Tensor, places: list[int], base: float) -> torch.Tensor:
    """Equation 34 of Su et al. 2021: each pair of neighbors times a matrix of two by two."""
    turned = torch.empty_like(x)
    d = x.shape[-1]
    for row, place in enumerate(places):
        for pair in range(d // 2):
            angle = place * base ** (-2 * pair / d)
            turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            both = slice(2 * pair, 2 * pair + 2)
            turned[:, row, :, both] = x[:, row, :, both] @ torch.tensor(turn, dtype=x.dtype).T
    return turned


def some(heads: int, dtype: torch.dtype = torch.float64, seq: int = 5) -> torch.Tensor:
    return torch.randn(2, seq, heads, 8, dtype=dtype, generator=torch.Generator().manual_seed(heads))


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize("places", [None, [0, 1, 6, 7, 3], [100_000, 100_001, 3, 2, 1]])
def test_each_pair_is_turned_by_its_angle(places, base):
    query, key = some(4), some(2)
    turned = rotate(query, key, None if places is None else torch.tensor(places), base)
    for mine, given in zip(turned, (query, key), strict=True):
        torch.testing.assert_close(mine, by_hand(given, places or list(range(5)), base), rtol=0, atol=1e-10)


def test_only_the_distance_counts():
    query, key = some(3), some(3)
    here, there = (rotate(query, key, torch.arange(5) + shift) for shift in (0, 70_000))
    scores, later = ((q.transpose(1, 2) @ k.transpose(1, 2).mT) for q, k in (here, there))
    torch.testing.assert_close(scores, later, rtol=0, atol=1e-9)
    assert not torch.allclose(here[0], there[0])


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
def test_far_places_stay_exact_in_narrow_types(dtype, near):
    query, places = some(2, dtype), torch.arange(5) + 100_000
    turned = rotate(query, query, places)[0]
    assert turned.dtype == dtype
    exact = rotate(query.double(), query.double(), places)[0]
    torch.testing.assert_close(turned.double(), exact, rtol=0, atol=near)


def test_the_sequences_of_a_batch_may_stand_at_different_places():
    query, places = some(3), torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]])
    turned = rotate(query, query, places)[0]
    for row in range(2):
        assert torch.equal(turned[row], rotate(query[row], query[row], places[row])[0])


def test_gradients_are_turned_back():
    query = some(2).requires_grad_()
    rotate(query, query.detach())[0].backward(some(2))
    back = rotate(some(2), some(2), -torch.arange(5))[0]
    torch.testing.assert_close(query.grad, back)


def test_as_many_positions_as_tokens():
    with pytest.raises(ValueError, match=r"positions of shape \(4,\) for a sequence of 5 tokens"):
        rotate(some(1), some(1), torch.arange(4))
