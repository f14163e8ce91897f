"""The loss of a cut vocabulary is that of one process: value, gradient, hard cases; and the logits are never gathered.

Tolerance, float64: 1e-12 times the size of the logits, for another order of sums.
"""

import itertools

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from shared_tp import message, worlds
from torch import nn

from parallel_lab import launch
from parallel_lab.tensor_parallel import VocabEmbedding, VocabHead, formulas, vocab_cross_entropy
from parallel_lab.tensor_parallel.vocab import own_tokens
from parallel_lab.trace import recorder

TOKENS = 12
VOCABS = (12, 13, 3, 2)  # at four ranks: equal parts, padding, a rank without a token, two of them


def logits_and_targets(vocab, scale):
    generator = torch.Generator().manual_seed(vocab)
    logits = scale * torch.randn(2, TOKENS // 2, vocab, dtype=torch.float64, generator=generator)
    targets = torch.randint(vocab, logits.shape[:-1], generator=generator)
    targets[0, 0], targets[1, -1] = 0, vocab - 1  # both ends
    return logits, targets


def one_process(logits, targets, **options):
    logits = logits.clone().requires_grad_()
    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), **options)
    loss.sum().backward()
    return loss.detach(), logits.grad


def cut(logits, targets, group, pad, **options):
    own = own_tokens(logits.shape[-1], group)
    mine = logits[..., own.start : own.stop].clone()
    width = -(-logits.shape[-1] // group.size()) if pad else len(own)
    mine = F.pad(mine, (0, width - len(own)), value=99.0).requires_grad_()  # padding must not count
    loss = vocab_cross_entropy(mine, targets, vocab=logits.shape[-1], group=group, **options)
    loss.sum().backward()
    return loss.detach(), mine.grad, own


def test_the_loss_and_each_rank_s_share_of_its_gradient():
    def fn():
        worst = 0.0
        kinds = ({"reduction": "mean"}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 1})
        for n, group in worlds(1, 2, 3, 4):
            for vocab, scale, kind, smoothing in itertools.product(VOCABS, (1, 1000), kinds, (0.0, 0.1)):
                if not group:
                    continue
                options = kind | {"label_smoothing": smoothing}
                logits, targets = logits_and_targets(vocab, scale)
                right, gradient = one_process(logits, targets, **options)
                loss, mine, own = cut(logits, targets, group, pad=n % 2 == 0, **options)
                worst = max(worst, (loss.flatten() - right.flatten()).abs().max().item() / scale)
                share = gradient[..., own.start : own.stop]
                assert torch.isfinite(mine).all() and not mine[..., len(own) :].any()
                worst = max(worst, (mine[..., : len(own)] - share).abs().max().item() if len(own) else 0.0)
        return worst

    assert max(launch(fn, ranks=4).results) < 1e-12


def test_targets_that_are_all_ignored_and_16_bit_logits():
    """Torch says NaN for a mean over nothing, and its gradient is zero; 16-bit logits are summed in float32."""

    def fn():
        logits, targets = logits_and_targets(12, 1)
        nothing = torch.full_like(targets, -100)
        mean, gradient, _ = cut(logits, nothing, dist.group.WORLD, pad=False, reduction="mean")
        total, _, _ = cut(logits, nothing, dist.group.WORLD, pad=False, reduction="sum")
        half = logits.bfloat16()
        loss, mine, _ = cut(half, targets, dist.group.WORLD, pad=False)
        right, _ = one_process(half.float(), targets)
        assert one_process(logits, nothing, reduction="mean")[1].abs().sum() == 0
        return mean.isnan().item(), total.item(), (loss - right).abs().item(), mine.dtype, gradient.abs().sum().item()

    for nan, total, off, dtype, gradient in launch(fn, ranks=2).results:
        assert nan and gradient == 0 and total == 0 and off < 1e-5 and dtype == torch.bfloat16


def test_bytes_are_three_numbers_a_token_and_none_in_the_backward_pass():
    """Gathered logits would be V/6 times as much. Asked of every n; logits in float64."""

    def fn():
        found = {}
        for n, group in worlds(2, 3, 4):
            if group:
                before = len(recorder().spans)
                logits, targets = logits_and_targets(12, 1)
                cut(logits, targets, group, pad=False)
                found[n] = [(s.kind, s.phase, s.sent_bytes) for s in recorder().spans[before:]]
        return found

    for n, spans in launch(fn, ranks=4)[0].items():
        sent = sum(size for _, _, size in spans)
        assert [(kind, phase) for kind, phase, _ in spans] == [("all_reduce", "loss")] * 2
        assert sent == formulas.loss_bytes(TOKENS, n, 8) < 7 * TOKENS * 8
        assert formulas.gathered_logits_bytes(TOKENS, 12, n, 8) == pytest.approx(sent * 12 / 6)


def test_the_gradient_of_the_logits_is_held_in_shares():
    """Nothing of the width of the vocabulary lives on a rank, in either pass."""

    def fn():
        widths = set()

        class Widths(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor) and out.dim() > 1:
                    widths.add(out.shape[-1])
                return out

        logits, targets = logits_and_targets(12, 1)
        own = own_tokens(12, dist.group.WORLD)
        mine = logits[..., own.start : own.stop].clone().requires_grad_()
        with Widths():
            vocab_cross_entropy(mine, targets, vocab=12, label_smoothing=0.1).backward()
        return widths

    assert all(max(widths - {TOKENS // 2}) <= 3 for widths in launch(fn, ranks=4).results)


def test_embedding_and_head_of_a_vocabulary_that_does_not_divide():
    """Rows that pad the table stay zeros, and their gradient is zero; a lookup sums over the ranks."""

    def fn():
        worst, padding = 0.0, 0.0
        for n, group in worlds(1, 2, 3, 4):
            if not group:
                continue
            table, tokens = nn.Embedding(13, 6, dtype=torch.float64), torch.tensor([[0, 12, 5], [5, 7, 1]])
            head = nn.Linear(6, 13, dtype=torch.float64)
            dist.broadcast(table.weight.data, 0, group=group)
            dist.broadcast(head.weight.data, 0, group=group)
            dist.broadcast(head.bias.data, 0, group=group)
            right = head(table(tokens))
            right.square().sum().backward()
            mine, part = VocabEmbedding(table, group=group), VocabHead(head, group=group)
            logits = part(mine(tokens))
            logits.square().sum().backward()
            own = own_tokens(13, group)
            rows = slice(own.start, own.stop)
            pairs = [
                (logits, right[..., rows]),
                (mine.weight.grad[: len(own)], table.weight.grad[rows]),
                (part.weight.grad[: len(own)], head.weight.grad[rows]),
                (part.bias.grad[: len(own)], head.bias.grad[rows]),
            ]
            worst = max(worst, *((a - b).abs().max().item() for a, b in pairs if a.numel()))
            for each in (mine.weight, mine.weight.grad, part.weight, part.weight.grad):
                padding = max(padding, each[len(own) :].abs().sum().item())
                assert each.shape == (-(-13 // n), 6)
        return worst, padding

    for worst, padding in launch(fn, ranks=4).results:
        assert worst < 1e-12 and padding == 0


def test_gathered_logits_and_other_nonsense_are_refused():
    """On every rank that is given it, before anything is sent."""
    logits, targets = logits_and_targets(12, 1)
    mine = logits[..., :6]
    wrong = {
        "12 logits a token, and 6 of 12 tokens are its own: these are the gathered ones": (logits, targets, {}),
        "do not fit targets": (mine, targets[:, 1:], {}),
        "targets go from 0 to 12: vocab=12, so expected 0 to 11": (mine, targets + (targets == 11), {}),
        "label_smoothing=1.5: expected a number from 0 to 1": (mine, targets, {"label_smoothing": 1.5}),
        "reduction='avg': expected mean, sum or none": (mine, targets, {"reduction": "avg"}),
    }

    def fn():
        found = {each: message(vocab_cross_entropy, a, b, vocab=12, **more) for each, (a, b, more) in wrong.items()}
        embed, padded = VocabEmbedding(nn.Embedding(12, 4)), nn.Embedding(12, 4, padding_idx=0)
        found["tokens go from 12 to 12"] = message(embed, torch.tensor([12]))
        found["padding_idx cannot be cut by tokens"] = message(lambda: VocabEmbedding(padded))
        return found

    for result in launch(fn, ranks=2).results:
        assert len(result) == 7 and all(expected in found for expected, found in result.items()), result
