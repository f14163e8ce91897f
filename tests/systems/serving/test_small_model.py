"""The real small model: its shape, its words, and answers that are known. Skipped where it is not installed."""

from typing import Any

import pytest
import torch

from parallel_lab.model import GPTConfig, build, causal_attention, parameter_count
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
    blocks: Any = small.model.blocks
    for block in blocks:
        block.attention.attend = causal_attention
    with torch.no_grad():
        logits = small.model(torch.tensor([sequence + small.words.encode(answers[0]).ids]))[0]
    picked = logits.argmax(-1)[len(sequence) - 1 :].tolist()
    assert small.words.decode(picked[:-1]) == answers[0] and picked[-1] == small.stop
    assert small.words.encode("17 + 25").tokens == ["1", "7", "Ġ+", "Ġ", "2", "5"]


READERS = ("gguf", "tokenizers")
TINY = GPTConfig(
    vocab=260,
    seq=128,
    layers=2,
    heads=4,
    kv_heads=2,
    width=32,
    hidden=64,
    positions="rotary",
    rotary_base=500.0,
    norm="rms",
    gated=True,
    bias=False,
)


def written(path):
    """A file of the same form around a small model; every byte is a token, and one pair is merged."""
    gguf, tokenizers = (pytest.importorskip(name, reason=f"{name} is missing: make model") for name in READERS)
    model, writer = build(TINY, seed=5), gguf.GGUFWriter(path, "llama")
    sizes = {"vocab_size": 260, "context_length": 128, "block_count": 2, "embedding_length": 32}
    sizes |= {"feed_forward_length": 64, "attention.head_count": 4, "attention.head_count_kv": 2}
    for name, size in sizes.items():
        writer.add_uint32(f"llama.{name}", size)
    writer.add_float32("llama.rope.freq_base", 500.0)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer.add_array("tokenizer.ggml.tokens", [*control, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "he"])
    writer.add_array("tokenizer.ggml.token_type", [3] * 3 + [1] * 257)
    writer.add_array("tokenizer.ggml.merges", ["h e"])
    held = dict(model.named_parameters())
    names = {"embedding.tokens": "token_embd", "head.norm": "output_norm"}
    for i in range(2):
        names |= {f"blocks.{i}.{ours}": f"blk.{i}.{theirs}" for ours, theirs in small_model.NAMES.items()}
    for ours, theirs in names.items():
        writer.add_tensor(f"{theirs}.weight", held[f"{ours}.weight"].detach().numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return model


def test_a_small_file_of_the_same_form(tmp_path, monkeypatch):
    model = written(tmp_path / "tiny.gguf")
    load_small_model.cache_clear()
    monkeypatch.setattr(small_model, "path", lambda: tmp_path / "tiny.gguf")
    read = load_small_model()
    load_small_model.cache_clear()
    assert read.model.config == TINY and read.stop == 2
    assert read.file_bytes == (tmp_path / "tiny.gguf").stat().st_size
    tokens = torch.tensor([read.words.encode("he said 12").ids])
    assert read.words.encode("he 12<|im_end|>").tokens == ["he", "Ġ", "1", "2", "<|im_end|>"]
    assert torch.equal(read.model(tokens), model(tokens))
    assert read.chat("hi")[0] == 1 and len(read.answer(["hi"], tokens=3)) == 1


def test_where_it_is_not_installed(monkeypatch):
    load_small_model.cache_clear()
    monkeypatch.setattr(small_model, "PACKAGE", "no_such_package")
    assert small_model.path() is None
    with pytest.raises(FileNotFoundError, match="make model"):
        load_small_model()
