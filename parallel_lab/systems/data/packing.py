"""Documents into sequences of one length: what is padded, what is cut, and who may look at whom.

Three ways:

- one document a sequence, padded: nothing is cut but what is too long, and most of a sequence may be padding;
- concatenate and cut: all documents in a row, cut every `seq` tokens. At most one sequence is not full, and a document
  is cut wherever an end falls into it;
- bin packing: documents longer than `seq` are cut into pieces of `seq` and a rest. Pieces are never cut again; the
  longest first, each goes into the first bin with room (first fit), or into the fullest one with room (best fit; Ding
  et al. 2024, "Fewer truncations improve language modeling").

The bound: first fit decreasing needs at most 11/9 OPT + 6/9 bins, and that is tight (Dosa 2007). OPT is at least the
sum of all lengths over `seq`, rounded up; it may be more, so a packing above this number can still be the best one.

In a packed sequence a token must not see another document. Its attention is masked, causal within its own document,
and positions begin again at 0 with each piece; otherwise the loss of a document depends on its neighbors. The rest of a
long document so begins anew: it does not see the piece before it, and no position reaches `seq`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """Tokens `start` to `start + length` of a document."""

    document: int
    start: int
    length: int


Packing = list[list[Piece]]


def padded(lengths: Sequence[int], seq: int) -> Packing:
    """A sequence for each piece of at most `seq` tokens."""
    return [[piece] for piece in pieces(lengths, seq)]


def pieces(lengths: Sequence[int], seq: int) -> list[Piece]:
    """The documents, the long ones cut into pieces of `seq` and a rest; an empty one gives none."""
    return [
        Piece(document, start, min(seq, length - start))
        for document, length in enumerate(lengths)
        for start in range(0, length, seq)
    ]


def concatenate_and_cut(lengths: Sequence[int], seq: int) -> Packing:
    """All documents in a row, cut every `seq` tokens."""
    packing, room = [[]], seq
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            if not room:
                packing.append([])
                room = seq
            taken = min(room, length - start)
            packing[-1].append(Piece(document, start, taken))
            start, room = start + taken, room - taken
    return packing if packing[0] else []


def first_fit_decreasing(lengths: Sequence[int], seq: int) -> Packing:
    """The longest piece first, each into the first sequence with room for it."""
    return _packed(lengths, seq, lambda fits: 0)


def best_fit_decreasing(lengths: Sequence[int], seq: int) -> Packing:
    """The longest piece first, each into the sequence that it leaves the least room in."""
    return _packed(lengths, seq, lambda fits: min(range(len(fits)), key=fits.__getitem__))


def _packed(lengths: Sequence[int], seq: int, choose: Callable[[list[int]], int]) -> Packing:
    """Puts each piece into one of the sequences with room for it; `choose` is given how much room each of them has."""
    packing, room = [], []
    for piece in sorted(pieces(lengths, seq), key=lambda piece: -piece.length):
        fits = [place for place, free in enumerate(room) if free >= piece.length]
        if not fits:
            fits = [len(packing)]
            packing.append([])
            room.append(seq)
        chosen = fits[choose([room[place] for place in fits])]
        packing[chosen].append(piece)
        room[chosen] -= piece.length
    return packing


class Cost(NamedTuple):
    """What a packing costs."""

    sequences: int
    waste: float  # the share of all places that are padding
    cuts: int  # how often a document is cut
    least: int  # no packing has fewer sequences than this


def cost(packing: Packing, lengths: Sequence[int], seq: int) -> Cost:
    """Sequences, padding and cuts of `packing`."""
    full, count = sum(lengths), len(packing)
    cuts = sum(map(len, packing)) - sum(length > 0 for length in lengths)
    return Cost(count, 1 - full / (count * seq) if count else 0.0, cuts, -(-full // seq))


def scores(packing: Packing, seq: int, masked: bool = True) -> int:
    """How many pairs of query and key are computed: with a mask that is used, length (length + 1) / 2 of a piece."""
    if not masked:
        return len(packing) * seq * (seq + 1) // 2
    return sum(piece.length * (piece.length + 1) // 2 for sequence in packing for piece in sequence)


class Packed(NamedTuple):
    """Sequences as a model wants them, each int64 (sequences, seq); padding has the document -1."""

    tokens: Tensor
    documents: Tensor
    positions: Tensor  # within the piece, and so from 0 with each piece


def collate(packing: Packing, tokens: Sequence[Tensor], seq: int, pad: int = 0) -> Packed:
    """The sequences of `packing` over the documents `tokens`, filled up with `pad`."""
    packed = Packed(*(torch.full((len(packing), seq), fill) for fill in (pad, -1, 0)))
    for row, sequence in enumerate(packing):
        place = 0
        for document, start, length in sequence:
            span = slice(place, place + length)
            packed.tokens[row, span] = tokens[document][start : start + length]
            packed.documents[row, span] = document
            packed.positions[row, span] = torch.arange(length)
            place += length
    return packed


def attention_mask(documents: Tensor) -> Tensor:
    """Who may look at whom, bool (sequences, seq, seq): at one's own document, and not ahead; padding at itself."""
    same = documents[:, :, None] == documents[:, None, :]
    seq = documents.shape[1]
    return same & torch.ones(seq, seq, dtype=torch.bool).tril()


def targets(packed: Packed, ignore: int = -100) -> Tensor:
    """The next token of the same document, and `ignore` at a document's last token and at padding."""
    follows = torch.full_like(packed.tokens, ignore)
    same = (packed.documents[:, 1:] == packed.documents[:, :-1]) & (packed.documents[:, 1:] >= 0)
    follows[:, :-1] = torch.where(same, packed.tokens[:, 1:], ignore)
    return follows
