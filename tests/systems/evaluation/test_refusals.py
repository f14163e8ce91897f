"""What is wrong is refused with what to do, on every rank alike; counts in narrow types lose samples; bytes are few."""

import math

import pytest
import sacrebleu
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.evaluation import (
    accuracy,
    auc,
    auc_over_ranks,
    bits_per_byte,
    bleu,
    calibration,
    chrf,
    confusion,
    f1,
    histogram_auc,
    likelihood,
    loss_scale,
    merge,
    perplexity,
    ranking,
    roc_over_ranks,
    rouge,
)

pytestmark = pytest.mark.usefixtures("by_value")
NOTHING = torch.zeros(0, dtype=torch.int64)


def _refused(function, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


def _without():
    """Nobody has a positive; then nobody has anything; the ranks have 2, 0 and 1 negatives."""
    labels, none = torch.zeros([2, 0, 1][dist.get_rank()], dtype=torch.int64), NOTHING
    scores, empty = torch.rand(len(labels)), torch.zeros(0)
    return [
        _refused(auc_over_ranks, labels, scores),
        _refused(roc_over_ranks, labels, scores),
        _refused(histogram_auc, labels, scores, 8),
        _refused(auc_over_ranks, none, empty),
        _refused(f1, merge(confusion(none, none, 3))),
        _refused(perplexity.perplexity, perplexity.merge(likelihood(torch.zeros(0, 5), none))),
        _refused(loss_scale, 0),
        _refused(calibration.temperature, none, torch.zeros(0, 3)),
        _refused(calibration.expected_calibration_error, merge(calibration.bins(none, torch.zeros(0, 3)))),
        _refused(rouge.score, merge(rouge.statistics([], []).sum(0))),
        bleu.score(merge(bleu.statistics([], []).sum(0))),
        chrf.score(merge(chrf.statistics([], []).sum(0))),
    ]


def test_what_no_rank_can_answer_is_refused_on_every_rank_alike():
    first, *others = launch(_without, ranks=3).results
    assert all(other == first for other in others)
    assert all("3 negatives" in text and "0 positives" in text for text in first[:3])
    assert "0 negatives" in first[3]
    assert all("no rank has a" in text for text in first[4:10]), first
    assert first[10:] == [0.0, 0.0], "as sacrebleu has it of an empty corpus"


REFUSED = {
    "is no class from 0 to 1": lambda: confusion(torch.tensor([0, 2]), torch.tensor([0, 1]), 2),
    "is no class from 0 to 2": lambda: confusion(torch.tensor([0, -100]), torch.tensor([0, 1]), 3),
    "1 labels and 2 predictions": lambda: confusion(torch.tensor([0]), torch.tensor([0, 1]), 2),
    "1 labels and 2 scores": lambda: auc(torch.tensor([0]), torch.rand(2)),
    "expected one of 'micro'": lambda: f1(torch.eye(2, dtype=torch.int64), "mean"),
    "is for two classes": lambda: f1(torch.eye(3, dtype=torch.int64), "binary"),
    "labels are 0 and 1": lambda: auc(torch.tensor([0, 2]), torch.rand(2)),
    "a score is NaN": lambda: auc(torch.tensor([0, 1]), torch.tensor([0.5, torch.nan])),
    "take sigmoid": lambda: ranking.histogram(torch.tensor([0, 1]), torch.tensor([0.5, 1.5]), 4),
    "pass text_bytes": lambda: bits_per_byte(likelihood(torch.zeros(2, 3), torch.tensor([0, 1]))),
    "not logits": lambda: calibration.bins(torch.tensor([0]), torch.tensor([[0.0, 2.0]])),
    "a row of probabilities": lambda: calibration.bins(torch.tensor([0]), torch.tensor([0.5])),
    "is the list of the references": lambda: bleu.statistics(["a"], ["a"]),
    "2 hypotheses and 1 lists": lambda: chrf.statistics(["a", "b"], [["a"]]),
    "expected one of rouge1": lambda: rouge.statistics(["a"], ["a"], "rouge"),
    "1 summaries and 0 references": lambda: rouge.statistics(["a"], []),
    "count in int64 or float64": lambda: merge(torch.zeros(3)),
}


@pytest.mark.parametrize("said", REFUSED)
def test_refusals_say_what_to_do(said):
    with pytest.raises(ValueError, match=said):
        REFUSED[said]()


@pytest.mark.parametrize("logits", [[[2.0, 0], [0, 2]], [[0.0, 2], [2, 0]]], ids=["all right", "all wrong"])
def test_where_no_temperature_is_best_every_rank_says_so(logits):
    calls = launch(_refused, calibration.temperature, torch.tensor([0, 1]), torch.tensor(logits), ranks=2).results
    assert calls[0] == calls[1] and "no temperature has the least loss" in calls[0]


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 2**8), (torch.float16, 2**11), (torch.float32, 2**24)], ids=str
)
def test_a_narrow_accumulator_stops_counting_and_int64_does_not(dtype, limit):
    count = torch.tensor(limit, dtype=dtype)
    assert count + 1 == count and torch.tensor(limit - 1, dtype=dtype) + 1 == limit
    assert torch.tensor(limit) + 1 == limit + 1 and torch.tensor(limit).double() + 1 == limit + 1


def test_a_class_that_nobody_has_seen_counts_in_no_mean():
    counts = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 4)
    each = f1(counts, None)
    assert each[:2].tolist() == pytest.approx([2 / 3, 2 / 3]) and each[2:].isnan().all()
    assert f1(counts, "macro") == pytest.approx(2 / 3) and accuracy(counts) == pytest.approx(2 / 3)
    two = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    assert f1(two, "binary") == pytest.approx(2 / 3)


def test_padded_tokens_do_not_count():
    logits, targets = (
        torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[1, 2, -100], [3, -100, -100]]),
    )
    found = likelihood(logits, targets)
    kept = logits[targets != -100].log_softmax(1)[torch.arange(3), torch.tensor([1, 2, 3])]
    assert found.tokens == 3 and found.nats == pytest.approx(-float(kept.sum()), abs=1e-5)


def _scaled(shares):
    """The gradient of a weight by DDP's average, each rank's loss the mean over its own tokens."""
    x, weight = shares[dist.get_rank()], torch.ones(1, dtype=torch.float64, requires_grad=True)
    loss = (weight * x).square().sum() / max(len(x), 1)
    (loss * loss_scale(len(x))).backward()
    dist.all_reduce(weight.grad)
    return float(weight.grad) / dist.get_world_size()


def test_the_scaled_loss_has_the_gradient_of_the_mean_over_all_tokens():
    shares = list(torch.arange(1.0, 11, dtype=torch.float64).split([7, 0, 1, 2]))
    right = 2 * float(torch.cat(shares).square().mean())
    assert launch(_scaled, shares, ranks=4).results == pytest.approx([right] * 4, abs=1e-12)
    unscaled = sum(2 * float(share.square().mean()) for share in shares if len(share)) / 4
    assert abs(unscaled - right) > 1


def _counts(classes):
    labels = torch.arange(1000) % classes
    merge(confusion(labels, labels, classes))


def _area(positives):
    labels = (torch.arange(1000) < positives[dist.get_rank()]).long()
    auc_over_ranks(labels, torch.rand(1000, dtype=torch.float64))


def test_bytes_are_those_that_the_tables_say():
    trace = launch(_counts, 12, ranks=4).trace
    assert {trace.bytes_sent(rank) for rank in range(4)} == {2 * 3 * 12 * 12 * 8 // 4}
    rare, n = [3, 0, 30, 7], 4
    trace = launch(_area, rare, ranks=n).trace
    assert max(trace.bytes_sent(rank) for rank in range(n)) <= 8 * sum(rare) + 8 * n + 48
    common = [1000 - some for some in rare]
    trace = launch(_area, common, ranks=n).trace
    assert max(trace.bytes_sent(rank) for rank in range(n)) <= 8 * sum(rare) + 8 * n + 48, "the rarer class travels"


SENTENCES = [
    ("It is a guide.", ["It is a guide to action.", "A guide."]),
    ("", ["nothing was said"]),
    ("a", ["a"]),
    ("&quot;AT&amp;T&quot; paid $3,000.50 - or 5-fold... <skipped>", ['"AT&T" paid $3,000.50, or five-fold', "x"]),
    ("the the the the the", ["the cat is on the mat"]),
    ("completely different", ["nothing alike here at all"]),
    ("猫坐在垫子上。", ["猫坐在垫子上。"]),
]


def test_single_sentences_and_several_references_are_sacrebleus():
    for hypothesis, references in SENTENCES:
        for theirs, mine in ((sacrebleu.corpus_bleu, bleu), (sacrebleu.corpus_chrf, chrf)):
            right = theirs([hypothesis], [[reference] for reference in references]).score
            assert mine.score(mine.statistics([hypothesis], [references]).sum(0)) == pytest.approx(right, abs=1e-9)


def test_corpus_bleu_is_no_mean_of_sentences_nor_of_halves():
    several = [(h, r) for h, r in SENTENCES if len(h) > 12]
    rows = bleu.statistics(*zip(*several, strict=True))
    whole = bleu.score(rows.sum(0))
    assert abs(sum(bleu.score(row) for row in rows) / len(rows) - whole) > 1
    assert abs((bleu.score(rows[:1].sum(0)) + bleu.score(rows[1:].sum(0))) / 2 - whole) > 1
    assert not math.isnan(whole)


def test_rouge_lsum_takes_lines_and_rouge_l_the_order():
    summary, reference = "the cat sat\na dog ran", "a dog ran\nthe cat sat"
    found = [rouge.score(rouge.statistics([summary], [reference], kind).sum(0)).f for kind in ("rougeL", "rougeLsum")]
    assert found == [0.5, 1.0]
