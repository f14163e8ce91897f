"""What compression stores and sends, in closed form; the tests hold each against a model or a recorded run.

Letters: n ranks, N numbers, e bytes a number.
"""


def bits_a_number(bits: int, group: int, scale_bits: int = 32, zero_bits: int = 0) -> float:
    """bits + (scale + zero) / group: 4.125 of 4 bits, groups of 128 and 16-bit scales; 4.25 with zeros as wide."""
    return bits + (scale_bits + zero_bits) / group


def uniform_error(step: float) -> float:
    """step^2 / 12, the mean squared error of rounding: places between two codes are uniform, and nothing is clipped."""
    return step**2 / 12


def sparse_bytes(numbers: int, kept: int, dtype_bytes: int = 4) -> int:
    """The kept numbers, and a bit for each number that says whether it is one of them: ceil(N/8) + e kept.

    Of 2:4 these are the two bits that say where in its four each kept number stands.
    """
    return -(-numbers // 8) + dtype_bytes * kept


def data_parallel_bytes(trained: int, n: int, dtype_bytes: int = 4) -> float:
    """2 (n-1)/n e N, what a rank sends in a step of data-parallel training for the N numbers that have a gradient."""
    return 2 * (n - 1) / n * dtype_bytes * trained
