"""What data go through before a rank trains on them: cleaned, without duplicates, split, cut into tokens, shuffled."""

from parallel_lab.systems.data import (
    augment,
    bpe,
    cleaning,
    corpus,
    duplicates,
    exchange,
    filters,
    loader,
    minhash,
    ngram,
    packing,
    shuffle,
    split,
)
from parallel_lab.systems.data.bpe import Tokenizer
from parallel_lab.systems.data.cleaning import clean
from parallel_lab.systems.data.filters import C4, GOPHER, Languages
from parallel_lab.systems.data.loader import IndexedLoader, StreamLoader
from parallel_lab.systems.data.ngram import NGram
from parallel_lab.systems.data.split import Leak, Split

__all__ = [
    "C4",
    "GOPHER",
    "IndexedLoader",
    "Languages",
    "Leak",
    "NGram",
    "Split",
    "StreamLoader",
    "Tokenizer",
    "augment",
    "bpe",
    "clean",
    "cleaning",
    "corpus",
    "duplicates",
    "exchange",
    "filters",
    "loader",
    "minhash",
    "ngram",
    "packing",
    "shuffle",
    "split",
]
