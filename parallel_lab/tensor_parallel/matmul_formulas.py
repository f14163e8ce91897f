"""What a distributed product y = x w sends and holds, and the least that any algorithm has to send. No torch.

`sizes` are (rows, inner, cols): x has rows · inner elements, w inner · cols, y rows · cols. `grid` is (n_rows, n_cols,
n_layers), the ranks along the rows of y, along its columns, and along the inner index; n = n_rows n_cols n_layers are
all. A word is one element of a matrix.

Sources: Agarwal et al. 1995, "A three-dimensional approach to parallel matrix multiplication" (the volume of a grid);
Ballard et al. 2012, "Strong scaling of matrix multiplication algorithms and memory-independent communication lower
bounds"; Al Daas et al. 2022, "Tight memory-independent parallel matrix multiplication communication lower bounds",
arXiv 2205.13407, theorem 3 (the constants, for any sizes).
"""

from collections.abc import Sequence
from itertools import product
from math import ceil, lcm

ALGORITHMS = ("one_d", "summa", "two_five_d", "three_d")


def padded(sizes: Sequence[int], grid: Sequence[int]) -> tuple[int, int, int]:
    """The sizes that `matmul.cut` pads with zeros to, so that every rank gets blocks of one shape.

    The rows become a multiple of n_rows n_layers (y is cut once more along `k`), the columns of n_cols, and the inner
    index of n_layers times the least common multiple of n_rows and n_cols, because SUMMA's panels lie on one column of
    ranks and on one row.
    """
    (rows, inner, cols), (i, j, k) = _sizes(sizes), _grid(grid)
    return _up(rows, i * k), _up(inner, k * lcm(i, j)), _up(cols, j)


def matmul_words(sizes: Sequence[int], grid: Sequence[int]) -> int:
    """Words that each rank sends: ((n_cols-1) |x| + (n_rows-1) |w| + (n_layers-1) |y|) / n, of the padded sizes.

    Each matrix travels along the one axis of the grid that is not among its indices, so the formula is that of all
    four algorithms: 1-D is the grid (n, 1, 1), SUMMA (n_rows, n_cols, 1), 2.5-D (side, side, layers) and 3-D three
    equal sides. Of h x h matrices these send (n-1)/n h^2, (n_rows+n_cols-2) h^2/n, (2 (side-1) + (layers-1)) h^2/n
    and 3 (side-1) h^2/n.
    x and w lie spread over all layers from the start; where they lie on the first layer alone, as in Solomonik &
    Demmel, copying comes on top.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    return ((j - 1) * rows * inner + (i - 1) * inner * cols + (k - 1) * rows * cols) // (i * j * k)


def message_words(sizes: Sequence[int], grid: Sequence[int], algorithm: str = "three_d") -> dict[str, int]:
    """Words of one message on each axis of the grid: those of x along `j`, of w along `i`, sums of y along `k`.

    SUMMA sends a panel of one of its lcm(n_rows, n_cols) steps, the others a rank's whole share. Times the bytes of a
    word, it is the `part_bytes` for which the simulator asks.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    of_x, of_w = (lcm(i, j), lcm(i, j)) if _in_panels(algorithm) else (j, i)
    x, w = (rows // i) * (inner // (k * of_x)), (inner // (k * of_w)) * (cols // j)
    return {"j": x, "i": w, "k": (rows // (i * k)) * (cols // j)}


def held_words(sizes: Sequence[int], grid: Sequence[int], algorithm: str = "three_d") -> int:
    """Words that a rank holds at most in a product: its shares of x and w, what has come of them, and its block of y.

    `summa` and `two_five_d` have a panel of each matrix, of the width of a step, `three_d` has the whole blocks, and
    `one_d` the whole of w. The sum over layers, afterwards, works on a copy of the block of y.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    width = inner // k // (lcm(i, j) if _in_panels(algorithm) else 1)
    own = (rows * inner + inner * cols) // (i * j * k)
    of_x = 0 if algorithm == "one_d" else rows // i * width
    return own + of_x + width * (cols // j) + rows // i * (cols // j)


def lower_bound(sizes: Sequence[int], ranks: int) -> float:
    """Words that some rank sends or receives at least, however much memory it has; any classical algorithm.

    A rank that does 1/n of the rows · inner · cols products touches blocks of x, w and y with a certain least sum
    (Loomis & Whitney 1949), and owns 1/n of each matrix; the rest must travel. With the sizes sorted, long >= middle >=
    short, it touches

        middle · short + long (middle + short)/n             up to n = long/middle: 1-D reaches it
        2 sqrt(long · middle · short^2/n) + long · middle/n  up to n = long · middle/short^2: 2-D reaches it
        3 (long · middle · short/n)^(2/3)                    from there on: 3-D reaches it, also of square matrices

    and owns (long · middle + middle · short + long · short)/n of it. A grid reaches the bound where its blocks can have
    the sizes that it asks for. It holds if there is one copy of x, w and y each, and ranks share the products or the
    data evenly.
    """
    long, middle, short = sorted(_sizes(sizes), reverse=True)
    if ranks < 1:
        raise ValueError(f"ranks={ranks}: expected at least 1")
    if ranks * middle <= long:
        touched = middle * short + (long * middle + long * short) / ranks
    elif ranks * short * short <= long * middle:
        touched = 2 * (long * middle * short * short / ranks) ** 0.5 + long * middle / ranks
    else:
        touched = 3 * _two_thirds(long * middle * short / ranks)
    return touched - (long * middle + middle * short + long * short) / ranks


def best_grid(sizes: Sequence[int], ranks: int) -> tuple[int, int, int]:
    """The grid (n_rows, n_cols, n_layers) of `ranks` ranks that sends fewest words; of equals, with fewest layers."""
    if ranks < 1:
        raise ValueError(f"ranks={ranks}: expected at least 1")
    divisors = [each for each in range(1, ranks + 1) if ranks % each == 0]
    grids = [(i, j, k) for i, j, k in product(divisors, repeat=3) if i * j * k == ranks]
    return min(grids, key=lambda grid: (matmul_words(sizes, grid), grid[2], -grid[0]))


def _in_panels(algorithm: str) -> bool:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm {algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
    return algorithm in ("summa", "two_five_d")


def _two_thirds(number: float) -> float:
    """number^(2/3), exact where the cube root is whole, so that a volume can be compared with it to the byte."""
    root = round(number ** (1 / 3))
    return float(root * root) if root**3 == number else number ** (2 / 3)


def _up(size: int, step: int) -> int:
    return ceil(size / step) * step


def _sizes(sizes: Sequence[int]) -> Sequence[int]:
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"sizes={tuple(sizes)}: expected rows, inner and cols of the product, each at least 1")
    return sizes


def _grid(grid: Sequence[int]) -> Sequence[int]:
    if len(grid) != 3 or min(grid) < 1:
        raise ValueError(f"grid={tuple(grid)}: expected the ranks along i, j and k, each at least 1")
    return grid
