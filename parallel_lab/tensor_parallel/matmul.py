"""Distributed matrix products C = A B: in one dimension, in two (SUMMA), in two and a half, and in three.

Ranks form a grid with axes i, j and k. A has the indices (i, k), B has (k, j) and C has (i, j), and rank (i, j, k)
multiplies the blocks of A and B that its place names. Each matrix travels along the one axis that is not among its
indices: A's blocks along j, B's along i, and the partial sums of C along k. The algorithms differ in the shape of the
grid, and in whether a block travels whole or panel by panel.

    one_d       P x 1 x 1   B is gathered; A and C never move
    summa       i x j x 1   van de Geijn & Watts 1997, "SUMMA: scalable universal matrix multiplication algorithm",
                            Concurrency: Practice and Experience 9(4); the basic algorithm and its ring broadcasts
    two_five_d  q x q x c   Solomonik & Demmel 2011, "Communication-optimal parallel 2.5D matrix multiplication and LU
                            factorization algorithms", Euro-Par, its section on multiplication; SUMMA where they shift
    three_d     q x q x q   Agarwal, Balle, Gustavson, Joshi & Palkar 1995, "A three-dimensional approach to parallel
                            matrix multiplication", IBM J. Res. Dev. 39(5)

    sharded            A, B and C; every element lies on one rank
    replicated         nothing, but for the panels or blocks under way
    sent per rank      ((j-1) |A| + (i-1) |B| + (k-1) |C|) / P, P = i j k: `matmul_formulas.matmul_words`
    held per rank      its shares, what has come of A and B, and a block of C: `matmul_formulas.held_words`

More layers k mean blocks of A and B that fewer ranks share, so less of them travels; but each layer holds a C of its
own, and that is summed in the end. `cut` makes the blocks of whole matrices, padded with zeros, and `join` puts C
together; `matmul_plan.py` has the plans.
"""

from math import lcm
from statistics import mode

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import pad

from parallel_lab.agree.problem import agree
from parallel_lab.collectives import all_gather, broadcast, reduce_scatter
from parallel_lab.runtime.group import member
from parallel_lab.runtime.mesh import make_mesh
from parallel_lab.tensor_parallel.matmul_formulas import padded
from parallel_lab.trace import span, tag


def grid(i: int = 1, j: int = 1, k: int = 1) -> DeviceMesh:
    """All ranks as a grid: `i` along the rows of C, `j` along its columns, `k` layers.

    The rank in a row, column and layer is number (layer i + row) j + column.

    Raises:
        ValueError: a size is no whole number from 1, or i j k is not the number of ranks.
    """
    return make_mesh(k=k, i=i, j=j)


def one_d(a: Tensor, b: Tensor, mesh: DeviceMesh) -> Tensor:
    """Rows of C, from this rank's rows of A (rows/P, inner) and rows of B (inner/P, cols). B is gathered.

    Raises:
        ValueError: the blocks do not fit each other, or the grid is not P x 1 x 1.
    """
    _check(a, b, mesh, "one_d", j=1, k=1)
    with tag(phase="B"):
        whole = all_gather(b, mesh.get_group("i"))
    with span("product"):
        return a @ whole


def summa(a: Tensor, b: Tensor, mesh: DeviceMesh) -> Tensor:
    """Block (i, j) of C, from this rank's blocks of A (rows/i, inner/j) and B (inner/i, cols/j). Panels are broadcast.

    In each step one column of ranks has a panel of A and broadcasts it along its rows of ranks, one row of ranks has
    the same panel of B and broadcasts it along its columns, and every rank adds the product of the two.

    Raises:
        ValueError: the blocks do not fit each other, or the grid has several layers.
    """
    _check(a, b, mesh, "summa", k=1)
    return _summa(a, b, mesh)


def _summa(a: Tensor, b: Tensor, mesh: DeviceMesh) -> Tensor:
    rows, columns = mesh.get_group("i"), mesh.get_group("j")
    steps = lcm(rows.size(), columns.size())
    c = a.new_zeros(len(a), b.shape[1])
    for step in range(steps):
        of_a = _panel(a.T, step, steps, columns, "A").T
        of_b = _panel(b, step, steps, rows, "B")
        with span("product", part=step):
            c.addmm_(of_a, of_b)
    return c


def _panel(block: Tensor, step: int, steps: int, group: dist.ProcessGroup, matrix: str) -> Tensor:
    """Panel `step` of `steps` along dim 0, from the rank of `group` that has it, passed on round a ring.

    In a ring every rank but the last sends a panel once, and each is last for as many panels, so all send alike.
    """
    owner, place = divmod(step, steps // group.size())
    width = len(block) * group.size() // steps
    mine = block[place * width : (place + 1) * width]
    panel = mine.contiguous() if group.rank() == owner else mine.new_empty(mine.shape)
    with tag(phase=matrix, part=step):
        return broadcast(panel, owner, group, "ring")


def two_five_d(a: Tensor, b: Tensor, mesh: DeviceMesh) -> Tensor:
    """This rank's rows of block (i, j) of C: every layer runs SUMMA on its share of the inner index; C is summed.

    A's block is (rows/i, inner/(k j)), B's (inner/(k i), cols/j), C's (rows/(i k), cols/j). A layer has its share from
    the start. The paper starts with A and B on one layer, and pays for copying them to the others.

    Raises:
        ValueError: the blocks do not fit each other.
    """
    _check(a, b, mesh, "two_five_d")
    return _sum_layers(_summa(a, b, mesh), mesh)


def three_d(a: Tensor, b: Tensor, mesh: DeviceMesh) -> Tensor:
    """The same, with whole blocks gathered in one go and one product: fewer messages, and more memory.

    Raises:
        ValueError: the blocks do not fit each other.
    """
    _check(a, b, mesh, "three_d")
    with tag(phase="A"):
        block_of_a = all_gather(a.T, mesh.get_group("j")).T
    with tag(phase="B"):
        block_of_b = all_gather(b, mesh.get_group("i"))
    with span("product"):
        c = block_of_a @ block_of_b
    return _sum_layers(c, mesh)


def _sum_layers(c: Tensor, mesh: DeviceMesh) -> Tensor:
    """This layer's rows of the sum over all layers."""
    with tag(phase="C"):
        return reduce_scatter(c, mesh.get_group("k"))


def cut(a: Tensor, b: Tensor, mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
    """This rank's blocks of A (rows, inner) and B (inner, cols), which all ranks hold whole; padded with zeros.

    A is cut i times along its rows and k j times along its columns, B k i times along its rows and j times along its
    columns. The sizes are first compared over all ranks.

    Raises:
        ValueError: on the rank at fault: A and B are no matrices that can be multiplied, or not those of other ranks.
    """
    (i, j, k), (row, column, layer) = _shape(mesh), _place(mesh)
    _agree_on(a, b)
    rows, inner, cols = padded((len(a), len(b), b.shape[1]), (i, j, k))
    a, b = pad(a, (0, inner - a.shape[1], 0, rows - len(a))), pad(b, (0, cols - b.shape[1], 0, inner - len(b)))
    mine_of_a = a.chunk(i)[row].chunk(k * j, 1)[layer * j + column]
    mine_of_b = b.chunk(k * i)[layer * i + row].chunk(j, 1)[column]
    return mine_of_a.contiguous(), mine_of_b.contiguous()


def join(c: Tensor, mesh: DeviceMesh, rows: int, cols: int) -> Tensor:
    """The whole C (rows, cols), on every rank, from the shares that a product returned; what was padded is cut off."""
    for axis in ("k", "i"):
        c = all_gather(c, mesh.get_group(axis))
    return all_gather(c.T, mesh.get_group("j")).T[:rows, :cols].contiguous()


def _shape(mesh: DeviceMesh) -> tuple[int, int, int]:
    """The grid (i, j, k) of `mesh`."""
    if set(mesh.mesh_dim_names or ()) != set("ijk"):
        raise ValueError(f"a mesh with the axes {mesh.mesh_dim_names}: expected i, j and k, as grid(i=2, j=2) makes it")
    i, j, k = (mesh.get_group(axis).size() for axis in "ijk")
    return i, j, k


def _place(mesh: DeviceMesh) -> tuple[int, int, int]:
    """This rank's row, column and layer in the grid."""
    row, column, layer = (mesh.get_group(axis).rank() for axis in "ijk")
    return row, column, layer


def _check(a: Tensor, b: Tensor, mesh: DeviceMesh, name: str, **sizes: int) -> None:
    """Refuses, before anything is sent, a grid that `name` is not for, and blocks that do not fit it or each other."""
    i, j, k = _shape(mesh)
    grid_, blocks = f"a grid of {i} x {j} x {k}", f"A of {_said(a)} and B of {_said(b)}"
    steps = lcm(i, j)
    if any(mesh.get_group(axis).size() != size for axis, size in sizes.items()):
        expected = " and ".join(f"{axis}={size}" for axis, size in sizes.items())
        problem = f"{name} got {grid_}: it is for {expected}; two_five_d and three_d take any grid"
    elif a.dim() != 2 or b.dim() != 2 or a.shape[1] * j != len(b) * i or len(a) % k or a.shape[1] * j % steps:
        problem = f"blocks {blocks} do not fit {grid_}: take those that cut(a, b, mesh) makes of the whole matrices"
    elif (a.dtype, a.device) != (b.dtype, b.device):
        problem = f"blocks {blocks} have {a.dtype} on {a.device} and {b.dtype} on {b.device}: make them alike"
    elif torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        problem = f"{name} has no backward pass, which would be two more such products: call it under torch.no_grad()"
    else:
        return
    raise ValueError(f"rank {dist.get_rank()}: {problem}")


def _agree_on(a: Tensor, b: Tensor) -> None:
    """Raises on the ranks whose matrices cannot be multiplied, or differ in size or type from most ranks'."""
    facts = f"A of {_said(a)} and B of {_said(b)} in {a.dtype} and {b.dtype}"
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, facts)
    usual, problem = mode(everyone), ""
    if facts != usual:
        problem = f"has {facts}, most ranks have {usual}: give every rank the same whole matrices"
    elif a.dim() != 2 or b.dim() != 2 or a.shape[1] != len(b) or a.dtype != b.dtype:
        problem = f"has {facts}: expected (rows, inner) and (inner, cols) in one dtype"
    agree(ValueError(f"rank {dist.get_rank()} {problem}") if problem else None, member(None), a.device)


def _said(matrix: Tensor) -> str:
    return " x ".join(map(str, matrix.shape))
