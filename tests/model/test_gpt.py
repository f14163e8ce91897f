"""The GPT: ties, causality, the seams for pipelines and tensor parallelism; the closed forms against measurements."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from parallel_lab.model import (
    GPT,
    GPTConfig,
    activation_bytes,
    block_activation_bytes,
    build,
    causal_attention,
    flops_per_token,
    loss,
    matmul_parameters,
    parameter_count,
    text_batches,
)
from parallel_lab.trace.memory import SavedTensors

CONFIGS = [
    GPTConfig(),
    GPTConfig(tied=False),
    GPTConfig(bias=False),
    GPTConfig(vocab=101, seq=33, layers=3, heads=2, width=48, mlp_ratio=3, tied=False),
    GPTConfig(vocab=7, seq=5, layers=1, heads=1, width=8, mlp_ratio=2, bias=False),
]
SMALL = GPTConfig(vocab=11, seq=6, layers=2, heads=4, width=16)
LLAMA = replace(SMALL, kv_heads=2, hidden=20, positions="rotary", gated=True, norm="rms", bias=False, tied=False)
OPTIONS = [  # every combination of what a block can be, with and without biases
    replace(SMALL, kv_heads=kv_heads, hidden=hidden, positions=positions, gated=gated, norm=norm, bias=bias)
    for kv_heads, hidden in ((None, None), (4, 20), (2, 20), (1, None))
    for positions in ("learned", "rotary")
    for gated in (False, True)
    for norm in ("layer", "rms")
    for bias in (False, True)
]


def some_tokens(config: GPTConfig, batch: int = 3) -> torch.Tensor:
    return torch.randint(config.vocab, (batch, config.seq), generator=torch.Generator().manual_seed(1))


def test_the_default_draws_the_weights_that_it_always_drew():
    """What the notebooks show hangs on them."""
    assert sum(p.double().sum().item() for p in build(GPTConfig()).parameters()) == pytest.approx(314.5319235524913)


def test_parameter_count():
    for config in [*CONFIGS, LLAMA, *OPTIONS]:
        assert parameter_count(config) == sum(p.numel() for p in GPT(config).parameters()), config
        assert matmul_parameters(config) == sum(m.weight.numel() for m in GPT(config).modules() if type(m) is nn.Linear)


def test_flops_equal_what_torch_counts():
    """Exact with the unfused kernel. The CPU's fused attention is unknown to the counter, which then sees 6 N alone."""
    for config in [*CONFIGS, LLAMA, *OPTIONS[::2]]:  # without biases, which multiply nothing
        model, tokens = GPT(config), some_tokens(config)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss(model(tokens), tokens).backward()
        assert counter.get_total_flops() == flops_per_token(config) * tokens.numel(), config


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [[each] for each in [*CONFIGS, replace(CONFIGS[0], dropout=0.1)]] + [OPTIONS])
def test_activation_bytes_equal_what_autograd_saves(options, dtype):
    for config in options:
        saves_what_the_formula_says(config, dtype)


def saves_what_the_formula_says(config, dtype):
    model, tokens = build(config, dtype=dtype), some_tokens(config)
    targets = tokens.clone()
    with SavedTensors(model) as saved:
        mean = loss(model(tokens), targets)
    assert saved.bytes == activation_bytes(config, len(tokens), dtype.itemsize), config
    mean.backward()
    assert saved.bytes == 0


@pytest.mark.parametrize("config", [*CONFIGS, LLAMA])
def test_a_checkpointed_block_keeps_its_input(config):
    """Under `checkpoint` the blocks' insides are not seen; the gradients are those of the plain run."""
    model, tokens = build(config), some_tokens(config)
    loss(model(tokens), tokens).backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    with SavedTensors(model) as saved:
        mean = loss(model(tokens), tokens.clone())
    assert saved.bytes == activation_bytes(config, len(tokens), recompute=True)
    mean.backward()
    assert all(torch.equal(p.grad, whole) for p, whole in zip(model.parameters(), gradients, strict=True))


def test_causal_flops_are_those_of_the_pairs_that_see_each_other():
    config = GPTConfig()
    attention = flops_per_token(config) - flops_per_token(config, causal=True)
    pairs = config.seq * (config.seq + 1) // 2
    both = 3 * 2 * 2 * config.layers * config.width  # forward and backward, scores and the sum over values
    assert attention * config.seq == both * (config.seq**2 - pairs)


def test_a_block_more_costs_what_block_activation_bytes_says():
    config = GPTConfig(heads=2, mlp_ratio=3)
    held = []
    for layers in (1, 2):
        model, tokens = GPT(replace(config, layers=layers)), some_tokens(config)
        with SavedTensors(model) as saved:
            logits = model(tokens)
        held.append(saved.bytes)
        del logits
    assert held[1] - held[0] == block_activation_bytes(config, 3)


def test_the_block_agrees_with_korthikanti_but_for_masks_and_scores():
    """Their 34 s b h has two one-byte masks; at two bytes a number, ours less norms' statistics is 32 s b h."""
    config, tokens = GPTConfig(), 3 * 64
    statistics = 2 * 4 * tokens + 4 * config.heads * tokens
    assert block_activation_bytes(config, 3, dtype_bytes=2) - statistics == 32 * tokens * config.width


def test_tied_weights_are_one_tensor_and_get_both_gradients():
    config = GPTConfig(layers=1)
    tied, untied = build(config), build(replace(config, tied=False))
    assert tied.head.linear.weight is tied.embedding.tokens.weight
    assert untied.head.linear.weight is not untied.embedding.tokens.weight
    untied.load_state_dict(tied.state_dict())
    tokens = some_tokens(config)
    for model in (tied, untied):
        loss(model(tokens), tokens.roll(1)).backward()
    both = untied.head.linear.weight.grad + untied.embedding.tokens.weight.grad
    assert untied.embedding.tokens.weight.grad.abs().max() > 1e-4  # so that leaving it out would be seen
    torch.testing.assert_close(tied.embedding.tokens.weight.grad, both, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("position", [1, 3, 7])
@pytest.mark.parametrize("config", [GPTConfig(seq=8), replace(LLAMA, seq=8)])
def test_a_later_token_does_not_change_earlier_logits(position, config):
    model, tokens = build(config, dtype=torch.float64), some_tokens(config)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % config.vocab
    before, after = model(tokens), model(changed)
    # 1e-12: a kernel may sum in another order, a leak is of the size of the logits.
    torch.testing.assert_close(before[:, :position], after[:, :position], rtol=0, atol=1e-12)
    assert (before[:, position:] - after[:, position:]).abs().amax(-1).min() > 1e-6


def test_attention_equals_the_definition():
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(causal_attention(q, k, v), scores.softmax(-1) @ v)


def test_a_key_head_serves_neighboring_query_heads():
    """Against PyTorch's own grouped attention, and against a model whose key-value heads are copies."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 8, dtype=torch.float64, generator=generator)
    k, v = torch.randn(2, 2, 2, 5, 8, dtype=torch.float64, generator=generator)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    copies = (each.repeat_interleave(3, dim=1) for each in (k, v))
    torch.testing.assert_close(causal_attention(q, k, v), theirs)
    torch.testing.assert_close(causal_attention(q, *copies), theirs)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_queries_are_heads_with_equal_keys_and_values(kv_heads):
    config = replace(LLAMA, kv_heads=kv_heads, bias=True)
    grouped, whole = build(config, dtype=torch.float64), build(replace(config, kv_heads=None), dtype=torch.float64)
    state = grouped.state_dict()
    copies = config.heads // kv_heads
    for name in state:
        if ".key." in name or ".value." in name:
            heads = state[name].unflatten(0, (kv_heads, config.head_width))
            state[name] = heads.repeat_interleave(copies, dim=0).flatten(0, 1)
    whole.load_state_dict(state)
    tokens = some_tokens(config)
    torch.testing.assert_close(grouped(tokens), whole(tokens))
    for model in (grouped, whole):
        loss(model(tokens), tokens.roll(1)).backward()
    sums = whole.blocks[0].attention.key.weight.grad.unflatten(0, (kv_heads, copies, -1)).sum(1).flatten(0, 1)
    torch.testing.assert_close(grouped.blocks[0].attention.key.weight.grad, sums)


def test_a_gated_feed_forward_is_its_equation():
    part = build(LLAMA, dtype=torch.float64).blocks[0].feed_forward
    x = torch.randn(3, LLAMA.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gate, up, down = (linear.weight for linear in (part.gate, part.up, part.down))
    torch.testing.assert_close(part(x), ((x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ up.T)) @ down.T)
    assert build(SMALL).blocks[0].feed_forward.gate is None


@pytest.mark.parametrize("config", [GPTConfig(layers=3), replace(LLAMA, layers=3)])
def test_layers_chained_are_the_model(config):
    model, tokens = build(config), some_tokens(config)
    layers = model.layers()
    assert len(layers) == 5
    first, second = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
    assert torch.equal(second(first(tokens)), model(tokens))


def test_attention_over_some_heads_adds_up():
    """A rank of tensor parallelism holds rows of q, k, v and columns of out; the sum over ranks is the whole."""
    model = build(GPTConfig(heads=4, width=32, bias=False), dtype=torch.float64)
    whole = model.blocks[0].attention
    x = torch.randn(2, 6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = whole(x)
    total = torch.zeros_like(x)
    for mine in (slice(0, 24), slice(24, 32)):  # three heads and one
        part = build(GPTConfig(heads=4, width=32, bias=False), dtype=torch.float64).blocks[0].attention
        for name in ("query", "key", "value"):
            getattr(part, name).weight = nn.Parameter(getattr(whole, name).weight[mine])
        part.out.weight = nn.Parameter(whole.out.weight[:, mine])
        total = total + part(x)
    torch.testing.assert_close(total, expected)


def test_positions_place_a_part_of_the_sequence():
    model, tokens = build(GPTConfig(layers=1)), some_tokens(GPTConfig())
    whole = model.embedding(tokens)
    part = model.embedding(tokens[:, 40:], torch.arange(40, 64))
    assert torch.equal(part, whole[:, 40:])
    assert not torch.equal(model.embedding(tokens[:, 40:]), whole[:, 40:])
    chosen = torch.tensor([0, 5, 63])
    assert torch.equal(model.embedding(tokens[:, chosen], chosen), whole[:, chosen])


def test_rotary_positions_place_a_part_of_the_sequence():
    """Equal distances give equal logits, wherever the sequence begins; other distances give others."""
    model, tokens = build(LLAMA, dtype=torch.float64), some_tokens(LLAMA)
    whole = model(tokens)
    torch.testing.assert_close(model(tokens, torch.arange(6) + 1000), whole)
    assert (model(tokens, 2 * torch.arange(6)) - whole).abs().max() > 1e-6
    assert not any("position" in name for name in model.state_dict())


def test_dropout_is_drawn_in_training_only():
    model, tokens = build(GPTConfig(dropout=0.5)), some_tokens(GPTConfig())
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_an_untrained_model_knows_nothing_and_training_on_text_teaches_it():
    model = build(GPTConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for tokens, targets in text_batches(seq=64, batch=16, steps=40):
        optimizer.zero_grad()
        mean = loss(model(tokens), targets)
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    assert losses[0] == pytest.approx(torch.tensor(256.0).log().item(), abs=0.1)  # near ln 256: all bytes alike
    assert sum(losses[-5:]) / 5 < 3.8


def test_loss_is_the_mean_over_all_targets():
    logits, targets = torch.randn(3, 4, 9), torch.randint(9, (3, 4))
    by_hand = -F.log_softmax(logits, -1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(loss(logits, targets), by_hand)
    torch.testing.assert_close(loss(logits[:, 0], targets[:, 0]), F.cross_entropy(logits[:, 0], targets[:, 0]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": 10, "heads": 4}, "a width of 10 does not divide into 4 heads"),
        ({"layers": 0}, "layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"vocab": -1}, "vocab is -1"),
        ({"kv_heads": 3}, "4 heads do not divide among 3 key-value heads"),
        ({"kv_heads": 0}, "kv_heads is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"positions": "sinus"}, "positions is 'sinus': expected learned or rotary"),
        ({"norm": "batch"}, "norm is 'batch': expected layer or rms"),
        ({"positions": "rotary", "width": 20}, "a head is 5 wide"),
    ],
)
def test_an_impossible_config_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**bad)


def test_a_sequence_too_long_is_refused():
    with pytest.raises(ValueError, match="65 tokens"):
        GPT(GPTConfig())(torch.zeros(1, 65, dtype=torch.int64))
