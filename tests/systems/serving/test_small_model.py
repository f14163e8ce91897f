"""The real small model: its shape, its words, and answers that are known. Skipped where it is not installed."""

import pytest
import torch

from parallel_lab.model import causal_attention, parameter_count
from parallel_lab.systems.serving import load_small_model, small_model

installed = pytest.mark.skipif(small_model.path() is None, reason="the small model is not installed: make model")


@installed
def test_it_answers_from_its_weights():
    """One prompt, checked against a computation without a cache. The numbers of the shape are the paper's."""
    small = load_small_model()
    load_small_model.cache_clear()
    config = small.model.config
    assert parameter_count(config) == sum(p.numel() for p in small.model.parameters()) == 134_515_008
    assert small.model.head.linear.weight is small.model.embedding.tokens.weight
    question = "What is the capital of France?"
    answers = small.answer([question, "Say hello."], tokens=8)
    assert answers[0] == "The capital of France is Paris."
    sequence = small.chat(question)
    assert small.words.decode(sequence).startswith("system\nYou are")
    for block in small.model.blocks:
        block.attention.attend = causal_attention
    with torch.no_grad():
        logits = small.model(torch.tensor([sequence + small.words.encode(answers[0]).ids]))[0]
    picked = logits.argmax(-1)[len(sequence) - 1 :].tolist()
    assert small.words.decode(picked[:-1]) == answers[0] and picked[-1] == small.stop
    assert small.words.encode("17 + 25").tokens == ["1", "7", "Ġ+", "Ġ", "2", "5"]


def test_where_it_is_not_installed(monkeypatch):
    load_small_model.cache_clear()
    monkeypatch.setattr(small_model, "PACKAGE", "no_such_package")
    assert small_model.path() is None
    with pytest.raises(FileNotFoundError, match="make model"):
        load_small_model()
