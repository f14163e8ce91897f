"""What a distributed product C = A B sends and holds, and the least that any algorithm has to send. No torch.

`sizes` are (rows, inner, cols): A has rows x inner elements, B inner x cols, C rows x cols. `grid` is (i, j, k), the
ranks along the rows of C, along its columns, and along the inner index; P = i j k. A word is one element of a matrix.

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

    The rows become a multiple of i k (C is cut once more along k), the columns of j, and the inner index of k times
    the least common multiple of i and j, because SUMMA's panels lie on one column of ranks and on one row.
    """
    (rows, inner, cols), (i, j, k) = _sizes(sizes), _grid(grid)
    return _up(rows, i * k), _up(inner, k * lcm(i, j)), _up(cols, j)


def matmul_words(sizes: Sequence[int], grid: Sequence[int]) -> int:
    """Words that each rank sends: ((j-1) |A| + (i-1) |B| + (k-1) |C|) / P, of the padded sizes.

    Each matrix travels along the one axis of the grid that is not among its indices, so the formula is that of all
    four algorithms: 1-D is the grid (P, 1, 1), SUMMA (i, j, 1), 2.5-D (q, q, c) and 3-D (q, q, q). Of n x n matrices
    these send (P-1)/P n^2, (i+j-2) n^2/P, (2(q-1) + (c-1)) n^2/P and 3 (q-1) n^2/P. A and B lie spread over all layers
    from the start; where they lie on the first layer alone, as in Solomonik & Demmel, copying comes on top.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    return ((j - 1) * rows * inner + (i - 1) * inner * cols + (k - 1) * rows * cols) // (i * j * k)


def message_words(sizes: Sequence[int], grid: Sequence[int], algorithm: str = "three_d") -> dict[str, int]:
    """Words of one message on each axis of the grid: A's along j, B's along i, sums of C along k.

    SUMMA sends a panel of one of its lcm(i, j) steps, the others a rank's whole share. Times the bytes of a word, it is
    the `part_bytes` for which the simulator asks.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    of_a, of_b = (lcm(i, j), lcm(i, j)) if _in_panels(algorithm) else (j, i)
    a, b = (rows // i) * (inner // (k * of_a)), (inner // (k * of_b)) * (cols // j)
    return {"j": a, "i": b, "k": (rows // (i * k)) * (cols // j)}


def held_words(sizes: Sequence[int], grid: Sequence[int], algorithm: str = "three_d") -> int:
    """Words that a rank holds at most: its shares of A and B, what it has gathered of them, and its block of C.

    `summa` and `two_five_d` hold one panel of each matrix, of the width of a step; `one_d` and `three_d` hold the whole
    blocks. C's share is cut out of the block when that is summed.
    """
    rows, inner, cols = padded(sizes, grid)
    i, j, k = grid
    steps = lcm(i, j) if _in_panels(algorithm) else 1
    own = (rows * inner + inner * cols) // (i * j * k)
    width = inner // k // steps
    return own + (rows // i * width) * (j > 1) + (width * cols // j) * (i > 1) + rows * cols // (i * j)


def lower_bound(sizes: Sequence[int], ranks: int) -> float:
    """Words that some rank sends or receives at least, however much memory it has; any classical algorithm.

    A rank that does 1/P of the rows x inner x cols products touches blocks of A, B and C with a certain least sum
    (Loomis & Whitney 1949), and owns 1/P of each matrix; the rest must travel. With the sizes sorted m >= n >= k:

        P <= m/n             nk + (mn + mk)/P       one long size: 1-D reaches it
        m/n <= P <= mn/k^2   2 sqrt(mnk^2/P) + mn/P one short size: 2-D reaches it
        mn/k^2 <= P          3 (mnk/P)^(2/3)        3-D reaches it, also of square matrices

    minus (mn + nk + mk)/P. A grid reaches it where its blocks can have the sizes that the bound asks for. It holds if
    there is one copy of A, B and C each, and ranks share the products or the data evenly.
    """
    m, n, k = sorted(_sizes(sizes), reverse=True)
    if ranks < 1:
        raise ValueError(f"ranks={ranks}: expected at least 1")
    if ranks * n <= m:
        touched = n * k + (m * n + m * k) / ranks
    elif ranks * k * k <= m * n:
        touched = 2 * (m * n * k * k / ranks) ** 0.5 + m * n / ranks
    else:
        touched = 3 * _two_thirds(m * n * k / ranks)
    return touched - (m * n + n * k + m * k) / ranks


def best_grid(sizes: Sequence[int], ranks: int) -> tuple[int, int, int]:
    """The grid (i, j, k) of `ranks` ranks that sends the fewest words; of equal ones that with fewer layers."""
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
