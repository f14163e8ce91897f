"""Distributed matrix products y = x w: in one dimension, in two (SUMMA), in two and a half, and in three.

Ranks form a grid with axes `i`, `j` and `k`, of n_rows, n_cols and n_layers ranks. x has the indices (i, k), w has
(k, j) and y has (i, j), and rank (i, j, k) multiplies the blocks of x and w that its place names. Each matrix travels
along the one axis that is not among its indices: the blocks of x along `j`, those of w along `i`, and the partial sums
of y along `k`. The algorithms differ in the shape of the grid, and in whether a block travels whole or panel by panel.

    one_d       n x 1 x 1               w is gathered; x and y never move
    summa       n_rows x n_cols x 1     van de Geijn & Watts 1997, "SUMMA: scalable universal matrix multiplication
                                        algorithm", Concurrency: Practice and Experience 9(4); the basic algorithm and
                                        its ring broadcasts
    two_five_d  side x side x layers    Solomonik & Demmel 2011, "Communication-optimal parallel 2.5D matrix
                                        multiplication and LU factorization algorithms", Euro-Par, its section on
                                        multiplication; SUMMA where they shift
    three_d     side x side x side      Agarwal, Balle, Gustavson, Joshi & Palkar 1995, "A three-dimensional approach to
                                        parallel matrix multiplication", IBM J. Res. Dev. 39(5)

    sharded            x, w and y; every element lies on one rank
    replicated         nothing, but for the panels or blocks under way
    sent per rank      ((n_cols-1) |x| + (n_rows-1) |w| + (n_layers-1) |y|) / n, n = n_rows n_cols n_layers:
                       `matmul_formulas.matmul_words`
    held per rank      its shares, what has come of x and w, and a block of y: `matmul_formulas.held_words`

More layers mean blocks of x and w that fewer ranks share, so less of them travels; but each layer holds a y of its
own, and that is summed in the end. `cut` makes the blocks of whole matrices, padded with zeros, and `join` puts y
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
    """All ranks as a grid: `i` along the rows of y, `j` along its columns, `k` layers.

    The rank in a row, column and layer is number (layer n_rows + row) n_cols + column.

    Raises:
        ValueError: a size is no whole number from 1, or n_rows n_cols n_layers is not the number of ranks.
    """
    return make_mesh(k=k, i=i, j=j)


def one_d(x: Tensor, w: Tensor, mesh: DeviceMesh) -> Tensor:
    """Rows of y, from this rank's rows of x (rows/n, inner) and rows of w (inner/n, cols). w is gathered.

    Raises:
        ValueError: the blocks do not fit each other, or the grid is not n x 1 x 1.
    """
    _check(x, w, mesh, "one_d", j=1, k=1)
    with tag(phase="w"):
        whole = all_gather(w, mesh.get_group("i"))
    with span("product"):
        return x @ whole


def summa(x: Tensor, w: Tensor, mesh: DeviceMesh) -> Tensor:
    """This rank's block of y, panel by panel.

    Its block of x is (rows/n_rows, inner/n_cols), that of w (inner/n_rows, cols/n_cols). In each step one column of
    ranks has a panel of x and broadcasts it along its rows of ranks, one row of ranks has the same panel of w and
    broadcasts it along its columns, and every rank adds the product of the two.

    Raises:
        ValueError: the blocks do not fit each other, or the grid has several layers.
    """
    _check(x, w, mesh, "summa", k=1)
    return _summa(x, w, mesh)


def _summa(x: Tensor, w: Tensor, mesh: DeviceMesh) -> Tensor:
    rows, columns = mesh.get_group("i"), mesh.get_group("j")
    steps = lcm(rows.size(), columns.size())
    y = x.new_zeros(len(x), w.shape[1])
    for step in range(steps):
        of_x = _panel(x.T, step, steps, columns, "x").T
        of_w = _panel(w, step, steps, rows, "w")
        with span("product", part=step):
            y.addmm_(of_x, of_w)
    return y


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


def two_five_d(x: Tensor, w: Tensor, mesh: DeviceMesh) -> Tensor:
    """This rank's rows of its block of y: every layer runs SUMMA on its share of the inner index; y is summed.

    The block of x is (rows/n_rows, inner/(n_layers n_cols)), that of w (inner/(n_layers n_rows), cols/n_cols), that of
    y (rows/(n_rows n_layers), cols/n_cols). A layer has its share from the start. The paper starts with x and w on one
    layer, and pays for copying them to the others.

    Raises:
        ValueError: the blocks do not fit each other.
    """
    _check(x, w, mesh, "two_five_d")
    return _sum_layers(_summa(x, w, mesh), mesh)


def three_d(x: Tensor, w: Tensor, mesh: DeviceMesh) -> Tensor:
    """The same, with whole blocks gathered in one go and one product: fewer messages, and more memory.

    Raises:
        ValueError: the blocks do not fit each other.
    """
    _check(x, w, mesh, "three_d")
    with tag(phase="x"):
        block_of_x = all_gather(x.T, mesh.get_group("j")).T
    with tag(phase="w"):
        block_of_w = all_gather(w, mesh.get_group("i"))
    with span("product"):
        y = block_of_x @ block_of_w
    return _sum_layers(y, mesh)


def _sum_layers(y: Tensor, mesh: DeviceMesh) -> Tensor:
    """This layer's rows of the sum over all layers."""
    with tag(phase="y"):
        return reduce_scatter(y, mesh.get_group("k"))


def cut(x: Tensor, w: Tensor, mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
    """This rank's blocks of x (rows, inner) and w (inner, cols), which all ranks hold whole; padded with zeros.

    x is cut n_rows times along its rows and n_layers n_cols times along its columns, w n_layers n_rows times along its
    rows and n_cols times along its columns. The sizes are first compared over all ranks.

    Raises:
        ValueError: on the rank at fault: x and w are no matrices that can be multiplied, or not those of other ranks.
    """
    (i, j, k), (row, column, layer) = _shape(mesh), _place(mesh)
    _agree_on(x, w)
    rows, inner, cols = padded((len(x), len(w), w.shape[1]), (i, j, k))
    x, w = pad(x, (0, inner - x.shape[1], 0, rows - len(x))), pad(w, (0, cols - w.shape[1], 0, inner - len(w)))
    mine_of_x = x.chunk(i)[row].chunk(k * j, 1)[layer * j + column]
    mine_of_w = w.chunk(k * i)[layer * i + row].chunk(j, 1)[column]
    return mine_of_x.clone(memory_format=torch.contiguous_format), mine_of_w.clone(
        memory_format=torch.contiguous_format
    )


def join(y: Tensor, mesh: DeviceMesh, rows: int, cols: int) -> Tensor:
    """The whole y (rows, cols), on every rank, from the shares that a product returned; what was padded is cut off."""
    for axis in ("k", "i"):
        y = all_gather(y, mesh.get_group(axis))
    return all_gather(y.T, mesh.get_group("j")).T[:rows, :cols].contiguous()


def _shape(mesh: DeviceMesh) -> tuple[int, int, int]:
    """The ranks of `mesh` along `i`, `j` and `k`."""
    if set(mesh.mesh_dim_names or ()) != set("ijk"):
        raise ValueError(f"a mesh with the axes {mesh.mesh_dim_names}: expected i, j and k, as grid(i=2, j=2) makes it")
    i, j, k = (mesh.get_group(axis).size() for axis in "ijk")
    return i, j, k


def _place(mesh: DeviceMesh) -> tuple[int, int, int]:
    """This rank's row, column and layer in the grid."""
    row, column, layer = (mesh.get_group(axis).rank() for axis in "ijk")
    return row, column, layer


def _check(x: Tensor, w: Tensor, mesh: DeviceMesh, name: str, **sizes: int) -> None:
    """Refuses, before anything is sent, a grid that `name` is not for, and blocks that do not fit it or each other."""
    i, j, k = _shape(mesh)
    grid_, blocks = f"a grid of {i} x {j} x {k}", f"x of {_said(x)} and w of {_said(w)}"
    steps = lcm(i, j)
    if any(mesh.get_group(axis).size() != size for axis, size in sizes.items()):
        expected = " and ".join(f"{axis}={size}" for axis, size in sizes.items())
        problem = f"{name} got {grid_}: it is for {expected}; two_five_d and three_d take any grid"
    elif x.dim() != 2 or w.dim() != 2 or x.shape[1] * j != len(w) * i or len(x) % k or x.shape[1] * j % steps:
        problem = f"blocks {blocks} do not fit {grid_}: take those that cut(x, w, mesh) makes of the whole matrices"
    elif (x.dtype, x.device) != (w.dtype, w.device):
        problem = f"blocks {blocks} have {x.dtype} on {x.device} and {w.dtype} on {w.device}: make them alike"
    elif torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        problem = f"{name} has no backward pass, which would be two more such products: call it under torch.no_grad()"
    else:
        return
    raise ValueError(f"rank {dist.get_rank()}: {problem}")


def _agree_on(x: Tensor, w: Tensor) -> None:
    """Raises on the ranks whose matrices cannot be multiplied, or differ in size or type from most ranks'."""
    facts = f"x of {_said(x)} and w of {_said(w)} in {x.dtype} and {w.dtype}"
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, facts)
    usual, problem = mode(everyone), ""
    if facts != usual:
        problem = f"has {facts}, most ranks have {usual}: give every rank the same whole matrices"
    elif x.dim() != 2 or w.dim() != 2 or x.shape[1] != len(w) or x.dtype != w.dtype:
        problem = f"has {facts}: expected (rows, inner) and (inner, cols) in one dtype"
    agree(ValueError(f"rank {dist.get_rank()} {problem}") if problem else None, member(None), x.device)


def _said(matrix: Tensor) -> str:
    return " x ".join(map(str, matrix.shape))
