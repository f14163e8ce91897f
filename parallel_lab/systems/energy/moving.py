"""What arithmetic and moving bytes cost, by published orders of magnitude.

Horowitz 2014 ("Computing's energy problem", ISSCC) gives picojoules in a 45 nm process at 0.9 V. Newer processes need
several times less for arithmetic and save less on wires and memory; so the *order* is worth remembering, and the
numbers are not those of today's GPU. A number that comes from memory costs hundreds of times its addition.
"""

from collections.abc import Mapping

PJ = 1e-12
ADD_PJ = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}  # Horowitz 2014, figure 1.1.9
MULTIPLY_PJ = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
READ_64_BITS_PJ = {
    "cache of 8 kB": 10.0,
    "cache of 32 kB": 20.0,
    "cache of 1 MB": 100.0,
    "DRAM": 1300.0,
}  # DRAM: to 2600
BYTES = {"int8": 1, "int32": 4, "float16": 2, "float32": 4}


def multiply_add_j(dtype: str) -> float:
    """A multiplication and an addition, without fetching what goes in."""
    return (ADD_PJ[dtype] + MULTIPLY_PJ[dtype]) * PJ


def read_j(place: str, count_bytes: float) -> float:
    """Reading so many bytes from a place of the memory."""
    return READ_64_BITS_PJ[place] / 8 * count_bytes * PJ


def reuse_that_pays(dtype: str, place: str = "DRAM") -> float:
    """How many multiply-adds per number read make arithmetic cost as much as the reading."""
    return read_j(place, BYTES[dtype]) / multiply_add_j(dtype)


def matmul_j(size: int, dtype: str, tile: int) -> Mapping[str, float]:
    """A square product of `size`, whose operands are read from DRAM once for each tile of `tile` rows or columns.

    There are size^3 multiply-adds. Each of the two operands is read size / tile times, and the result is written once.
    """
    numbers = 2 * size**2 * size / tile + size**2
    return {"arithmetic": size**3 * multiply_add_j(dtype), "DRAM": read_j("DRAM", numbers * BYTES[dtype])}


def all_reduce_j(n: int, size_bytes: float, pj_per_bit: float) -> float:
    """A ring all-reduce over links of so many picojoules a bit: n ranks send 2 (n-1)/n of the tensor each."""
    return 2 * (n - 1) * size_bytes * 8 * pj_per_bit * PJ
