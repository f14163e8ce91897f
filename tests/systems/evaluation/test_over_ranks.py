"""Every metric at 1, 2, 3 and 4 ranks, on uneven and empty shards, is the library's on all samples, to 1e-9.

One launch serves all: the smaller worlds are its first ranks. The averages that tempt people are held to be wrong.
"""

import numpy as np
import pytest
import sacrebleu
import torch
import torch.distributed as dist
from rouge_score.rouge_scorer import RougeScorer
from sklearn import metrics
from torchmetrics.classification import BinaryAUROC, MulticlassF1Score

from parallel_lab import launch
from parallel_lab.systems.evaluation import (
    auc,
    auc_over_ranks,
    bleu,
    calibration,
    chrf,
    classification,
    confusion,
    f1,
    gather,
    histogram_auc,
    likelihood,
    merge,
    perplexity,
    ranking,
    roc_over_ranks,
    rouge,
)
from parallel_lab.systems.evaluation.exchange import lengths

pytestmark = pytest.mark.usefixtures("by_value")
SAMPLES, CLASSES = 500, 5
CUTS = {1: [], 2: [410], 3: [0, 333], 4: [7, 7, 480]}  # rank 0 of 3 and rank 1 of 4 have nothing
TEXT = "the cat sat on,a mat, and 3.5 dogs (who?) ran-off; it is 10,000 & more. It's well-known\nthat won"


@pytest.fixture(scope="module")
def data():
    """Samples sorted so that ranks see different classes; scores with many ties."""
    dice = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES - 1, (SAMPLES,), generator=dice).sort().values  # the last class is in no label
    logits = torch.randn(SAMPLES, CLASSES, generator=dice, dtype=torch.float64)
    logits[torch.arange(SAMPLES), labels] += 1
    positive = (labels == 3).long()
    scores = (torch.rand(SAMPLES, generator=dice) + 0.3 * positive).mul(20).round() / 26
    return {"labels": labels, "logits": logits, "positive": positive, "scores": scores}


@pytest.fixture(scope="module")
def texts():
    dice = np.random.default_rng(0)
    references = [" ".join(dice.choice(TEXT.split(" "), dice.integers(3, 14))) for _ in range(24)]
    hypotheses = [
        " ".join(word for word in reference.split(" ") if dice.random() < 0.8) + " cat\nran" * (place % 3 == 0)
        for place, reference in enumerate(references)
    ]
    return {"hypotheses": hypotheses, "references": references}


def _share(values, world, samples=SAMPLES):
    cuts = [cut * samples // SAMPLES for cut in CUTS[world]]
    edges = [0, *cuts, samples]
    return values[edges[dist.get_rank()] : edges[dist.get_rank() + 1]]


def _measured(data, texts):
    found = {}
    for world in CUTS:
        group = dist.new_group(list(range(world)))
        if dist.get_rank() >= world:
            continue
        mine = {name: _share(values, world) for name, values in data.items()}
        said = {name: _share(values, world, len(values)) for name, values in texts.items()}
        found[world] = _of_samples(mine, group) | _of_texts(said, group)
    return found


def _of_samples(mine, group):
    predicted, probabilities = mine["logits"].argmax(1), mine["logits"].softmax(1)
    own = confusion(mine["labels"], predicted, CLASSES)
    counts = merge(own, group)
    sums = merge(calibration.bins(mine["labels"], probabilities), group)
    return {
        "counts": counts,
        "auc": auc_over_ranks(mine["positive"], mine["scores"], group),
        "auc of the rest": auc_over_ranks(1 - mine["positive"], mine["scores"], group),
        "histogram": {bins: histogram_auc(mine["positive"], mine["scores"], bins, group) for bins in (2, 7, 1000)},
        "roc": roc_over_ranks(mine["positive"], mine["scores"], group),
        "lengths": lengths(len(mine["labels"]), mine["labels"].device, group),
        "gathered": gather(mine["logits"], group),
        "ece": calibration.expected_calibration_error(sums),
        "reliability": calibration.reliability(sums),
        "temperature": calibration.temperature(mine["labels"], mine["logits"], group),
        "likelihood": perplexity.merge(likelihood(mine["logits"], mine["labels"], 3 * len(predicted)), group),
        "alone": (f1(own) if len(predicted) else None, len(predicted)),
    }


def _of_texts(said, group):
    several = [[reference] for reference in said["references"]]
    return {
        "bleu": bleu.score(merge(bleu.statistics(said["hypotheses"], several).sum(0), group)),
        "chrf": chrf.score(merge(chrf.statistics(said["hypotheses"], several).sum(0), group)),
        "rouge": {
            kind: rouge.score(merge(rouge.statistics(said["hypotheses"], said["references"], kind).sum(0), group))
            for kind in rouge.KINDS
        },
    }


@pytest.fixture(scope="module")
def found(data, texts, by_value):
    """For each world what each of its ranks found."""
    results = launch(_measured, data, texts, ranks=4).results
    return {world: [results[rank][world] for rank in range(world)] for world in CUTS}


def _each(found, name):
    return [one[name] for ranks in found.values() for one in ranks]


def near(values, right):
    assert values and all(abs(value - right) < 1e-9 for value in values), (values, right)


def test_f1_precision_recall_and_accuracy_are_scikit_learns(found, data):
    labels, predicted = data["labels"].numpy(), data["logits"].argmax(1).numpy()
    for counts in _each(found, "counts"):
        near([classification.accuracy(counts)], metrics.accuracy_score(labels, predicted))
        for average in ("micro", "macro", "weighted"):
            for name, theirs in (("precision", 0), ("recall", 1), ("f1", 2)):
                right = metrics.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[
                    theirs
                ]
                near([getattr(classification, name)(counts, average)], right)
        each = metrics.f1_score(labels, predicted, average=None, zero_division=0)
        assert torch.allclose(f1(counts, None), torch.tensor(each), atol=1e-9, rtol=0)


def test_the_mean_of_ranks_is_another_f1_with_weights_too(found, data):
    right = metrics.f1_score(data["labels"], data["logits"].argmax(1), average="macro", zero_division=0)
    alone = [one["alone"] for one in found[4] if one["alone"][1]]
    means = (sum(value for value, _ in alone) / len(alone), sum(value * n for value, n in alone) / SAMPLES)
    assert all(abs(mean - right) > 0.005 for mean in means), (means, right)


def test_auc_is_scikit_learns_with_ties_on_uneven_and_empty_ranks(found, data):
    right = metrics.roc_auc_score(data["positive"], data["scores"])
    near(_each(found, "auc"), right)
    near(_each(found, "auc of the rest"), 1 - right)
    near([auc(data["positive"], data["scores"])], right)
    assert len(set(_each(found, "auc"))) == 1, "a ratio of whole numbers has the same bits in every world"


def test_the_mean_of_ranks_is_another_auc_weighted_by_pairs_too(data):
    """Ranks whose scores sit at different heights, both with both classes: the cross pairs decide."""
    dice = torch.Generator().manual_seed(1)
    labels = (torch.rand(2, 200, generator=dice) < torch.tensor([[0.5], [0.1]])).long()
    scores = torch.rand(2, 200, generator=dice) + labels * 0.2 + torch.tensor([[0.4], [0.0]])
    alone = torch.tensor([auc(*rank) for rank in zip(labels, scores, strict=True)])
    pairs = (labels.sum(1) * (1 - labels).sum(1)).double()
    right = metrics.roc_auc_score(labels.flatten(), scores.flatten())
    assert auc(labels, scores) == pytest.approx(right, abs=1e-12)
    assert abs(float(alone.mean()) - right) > 0.05 and abs(float((alone * pairs).sum() / pairs.sum()) - right) > 0.05


def test_a_histogram_is_as_near_as_its_bound_says(found, data):
    right = metrics.roc_auc_score(data["positive"], data["scores"])
    for histograms in _each(found, "histogram"):
        bounds = [histograms[bins].bound for bins in (2, 7, 1000)]
        assert all(abs(one.value - right) <= one.bound + 1e-12 for one in histograms.values())
        assert bounds[0] > bounds[1] > bounds[2]
    positive, places = data["positive"], (data["scores"] * 7).long().clamp(max=6)
    tied = sum(int((positive[places == b] == 1).sum() * (positive[places == b] == 0).sum()) for b in range(7))
    near([bounds[1]], tied / (2 * int(positive.sum()) * int((1 - positive).sum())))
    apart, label = torch.tensor([0.05, 0.95]), torch.tensor([0, 1])
    assert ranking.area_of(ranking.histogram(label, apart, 2)) == (1.0, 0.0), "no bin has both: the bound is 0"
    assert ranking.area_of(ranking.histogram(label, apart, 1)) == (0.5, 0.5), "the bound is reached: AUC is 1"


def test_the_curve_is_scikit_learns(found, data):
    theirs = metrics.roc_curve(data["positive"], data["scores"].double(), drop_intermediate=False)
    for curve in _each(found, "roc"):
        for mine, right in zip(curve, theirs, strict=True):
            assert torch.allclose(mine, torch.from_numpy(right), atol=1e-9, rtol=0)


def test_rows_are_gathered_in_the_order_of_ranks(found, data):
    assert found[4][1]["lengths"] == [7, 0, 473, 20]
    assert all(torch.equal(gathered, data["logits"]) for gathered in _each(found, "gathered"))


def test_perplexity_is_that_of_all_tokens(found, data):
    loss = torch.nn.functional.cross_entropy(data["logits"], data["labels"]).item()
    near([perplexity.mean_loss(each) for each in _each(found, "likelihood")], loss)
    near([perplexity.perplexity(each) for each in _each(found, "likelihood")], np.exp(loss))
    near([perplexity.bits_per_byte(each) for each in _each(found, "likelihood")], loss / np.log(2) / 3)


def test_calibration_is_that_of_all_samples(found, data):
    confidence, predicted = data["logits"].softmax(1).max(1)
    right, place = predicted == data["labels"], (confidence * 15).ceil() - 1
    bins = [place == b for b in range(15) if (place == b).any()]
    gaps = [float(abs(confidence[b].sum() - right[b].sum())) / SAMPLES for b in bins]
    near(_each(found, "ece"), sum(gaps))
    for diagram in _each(found, "reliability"):
        assert torch.allclose(diagram.accuracy, torch.stack([right[b].double().mean() for b in bins]), atol=1e-9)
        assert diagram.samples.sum() == SAMPLES


def test_no_other_temperature_has_less_loss(found, data):
    for t in _each(found, "temperature"):
        scale = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        torch.nn.functional.cross_entropy(data["logits"] / scale, data["labels"]).backward()
        assert abs(scale.grad) < 1e-9


def test_bleu_and_chrf_are_sacrebleus(found, texts):
    several = [texts["references"]]
    near(_each(found, "bleu"), sacrebleu.corpus_bleu(texts["hypotheses"], several).score)
    near(_each(found, "chrf"), sacrebleu.corpus_chrf(texts["hypotheses"], several).score)


def test_rouge_is_rouge_scores(found, texts):
    scorer = RougeScorer(list(rouge.KINDS))
    scored = [scorer.score(*pair) for pair in zip(texts["references"], texts["hypotheses"], strict=True)]
    for kind in rouge.KINDS:
        right = np.mean([[one[kind].precision, one[kind].recall, one[kind].fmeasure] for one in scored], 0)
        for mine in _each(found, "rouge"):
            assert np.allclose(mine[kind], right, atol=1e-9, rtol=0)


def _torchmetrics(data):
    """The same two by torchmetrics, which exchanges samples or counts by itself, on four uneven ranks.

    None of them is empty: torchmetrics 1.9 pads what it gathers, and aborts where a rank has never called `update`.
    """
    mine = {name: values.tensor_split([7, 20, 480])[dist.get_rank()] for name, values in data.items()}
    area, score = BinaryAUROC().set_dtype(torch.float64), MulticlassF1Score(CLASSES, average="macro")
    area.update(mine["scores"].double(), mine["positive"])
    score.update(mine["logits"], mine["labels"])
    return float(area.compute()), float(score.compute())


def test_torchmetrics_over_gloo_comes_to_the_same(found, data):
    (theirs_auc, theirs_f1), *_ = launch(_torchmetrics, data, ranks=4).results
    assert theirs_auc == pytest.approx(found[4][0]["auc"], abs=1e-7), "theirs is in float32"
    assert theirs_f1 == pytest.approx(f1(found[4][0]["counts"], "macro"), abs=1e-7)
