"""The straight-through gradient, and a model that trains through it."""

import pytest
import torch

from parallel_lab.compress import QuantizedLinear, convert, prepare
from parallel_lab.compress.quantization import code_range, quantize
from parallel_lab.compress.quantization_aware import StraightThrough
from parallel_lab.model import GPTConfig, build, digit_batches, text_batches, train


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_forward_and_gradient_are_those_of_torch_fake_quantize(bits, symmetric, per):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(bits), requires_grad=True)
    of_output = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    made = quantize(weight, bits, per=per, symmetric=symmetric)
    ends = code_range(bits, symmetric)
    if per == "tensor":
        theirs = torch.fake_quantize_per_tensor_affine(weight, made.scale[0], made.zero[0], *ends)
    else:
        theirs = torch.fake_quantize_per_channel_affine(weight, made.scale, made.zero, 0, *ends)
    ours = StraightThrough.apply(weight, bits, {"per": per, "symmetric": symmetric})
    wanted, got = (torch.autograd.grad(one, weight, of_output)[0] for one in (theirs, ours))
    assert torch.equal(ours, theirs) and torch.equal(got, wanted)
    if symmetric and per == "channel":  # the greatest number's code is clipped where it is positive
        assert (got == 0).any() and not (got == 0).all()


def test_clipped_numbers_have_no_gradient():
    weight = torch.tensor([[-4.0, -1.0, 1.0, 4.0]], requires_grad=True)
    narrow = {"find": lambda rows: (rows.new_tensor([-2.0]), rows.new_tensor([2.0]))}
    out = StraightThrough.apply(weight, 4, narrow)
    out.sum().backward()
    assert weight.grad.tolist() == [[0, 1, 1, 0]]
    assert out[0, 0] == -out.new_tensor(2.0) / 7.5 * 8


def test_training_moves_the_float_weights_and_codes_follow():
    model = build((64, 32, 10))
    made = prepare(model, 3, per="channel")
    trained = train(made, digit_batches(64, 40), torch.optim.Adam, lr=0.005)
    assert sum(trained.losses[-5:]) < 0.5 * sum(trained.losses[:5])
    assert trained.weights["0.weight"].unique().numel() > 8 * 32  # between the codes too
    made.load_state_dict(trained.weights)
    stored = convert(made)
    assert isinstance(stored[0], QuantizedLinear) and isinstance(stored[2], QuantizedLinear)
    images = next(iter(digit_batches(64, 1)))[0]
    assert torch.equal(stored(images), made(images))
    assert torch.equal(model[0].weight, build((64, 32, 10))[0].weight)


def test_a_gpt_with_a_tied_output_layer():
    config = GPTConfig(seq=16, width=16, layers=1, heads=2)
    made = prepare(build(config), 8, per="channel")
    trained = train(made, text_batches(16, 4, 5), torch.optim.Adam, lr=0.01)
    assert trained.losses[-1] < trained.losses[0]
    assert convert(made).head.linear.weight is not made.head.linear.weight
    assert not isinstance(convert(made).head.linear, QuantizedLinear)
