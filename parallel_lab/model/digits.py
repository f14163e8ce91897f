"""Real images: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998), kept in its package.

A file of its own: scikit-learn takes about a second to import, which a rank that trains on text does not pay.
"""

from collections.abc import Iterator
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from parallel_lab.model.data import Batch, Batches, cut, share

TEST = 0.2  # the share of the images that is never trained on


@cache
def digit_images(split: str = "train", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images, float32 (count, 64) in [0, 1], and labels, int64 (count,): `train` (80 %) or `test` (20 %).

    `seed` shuffles before the cut, because neighbors in the file were written by the same hand. The tensors are shared
    by all callers: leave them as they are.
    """
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = cut(order, split, "test", TEST)
    return torch.tensor(images / 16.0, dtype=torch.float32)[chosen], torch.tensor(labels, dtype=torch.int64)[chosen]


def digit_batches(batch: int, steps: int, rank: int = 0, world: int = 1, seed: int = 0) -> Batches:
    """Rank's share of `steps` global batches of training digits: images (share, 64) and labels (share,).

    Each epoch goes through all images in an order of its own, which `seed` decides; a batch may reach from one epoch
    into the next.
    """
    images, labels = digit_images()
    mine = share(batch, rank, world)

    def draw() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        waiting = torch.empty(0, dtype=torch.int64)
        while True:
            while len(waiting) < batch:
                waiting = torch.cat([waiting, torch.randperm(len(labels), generator=generator)])
            now, waiting = waiting[:batch][mine], waiting[batch:]
            yield images[now], labels[now]

    return Batches(steps, draw)
