"""A backward pass in two halves: I, the gradients of the inputs, now; W, those of the weights, whenever there is time.

Qi et al. 2024, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2.

Of a layer y = x w, the stage before waits for the gradient of x, and nobody but the optimizer for that of w. Autograd
computes both at once. So each module that holds matrices gets a graph of its own behind one node of the stage's graph
(`OwnGraph`): when I comes to that node it computes the gradient of x alone and keeps that of y. W starts from all the
kept ones at once, in one backward pass, so that whoever listens to the parameters (DDP, Zero3) hears of each once.

No product is computed twice and no forward is run again. I frees what the stage saved outside these modules; until W
stay the input of each and the gradient of its output. Modules without a matrix (norms), with children, or whose
weights are used without a call, get their gradients in I: they cost little, or cannot be told apart from outside.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from parallel_lab.compat import tree_flatten, tree_unflatten

Kept = list[tuple[list[GradientEdge], list[Tensor], list[Tensor]]]
"""For each call of a module: where its own graph begins, the gradients there, and the weights that want theirs."""


def has_matrices(module: nn.Module) -> bool:
    """Whether W has something to do for `module`: it has no children, and a trained parameter of two dimensions."""
    leaf = next(module.children(), None) is None
    return leaf and any(p.requires_grad and p.dim() > 1 for p in module.parameters())


@contextmanager
def weights_later(modules: Iterable[nn.Module], kept: Kept) -> Iterator[None]:
    """Inside, each call of one of `modules` leaves the gradients of its weights to W, which finds them in `kept`."""
    modules = list(modules)
    for module in modules:
        module.forward = _with_own_graph(module, module.forward, kept)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # what its class has comes to light again


def _with_own_graph(module: nn.Module, forward: Callable, kept: Kept) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        weights = [w for w in module._parameters.values() if w is not None and w.requires_grad]
        anchor = torch.empty(0, requires_grad=True)  # or autograd would leave out a module whose inputs need nothing
        if len(args) == 1 and not kwargs and isinstance(module, nn.Linear | nn.Embedding):  # as below, but faster
            return OwnGraph.apply(anchor, lambda x: (forward(x),), weights, kept, *args)[0]
        flat, form = tree_flatten((args, kwargs))
        shape: list = []  # of what the module returns; filled in by its call

        def run(*inputs: Any) -> list:
            (args, kwargs), outputs = tree_unflatten(list(inputs), form), []
            outputs[:], form_of_outputs = tree_flatten(forward(*args, **kwargs))
            shape.append(form_of_outputs)
            return outputs

        outputs = OwnGraph.apply(anchor, run, weights, kept, *flat)
        return tree_unflatten(list(outputs), shape[0])

    return call


class OwnGraph(torch.autograd.Function):
    """A call of a module as one node, behind which the module has a graph of its own."""

    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, run: Callable, weights: list, kept: Kept, *inputs: Any) -> tuple:
        """What the module returns, cut off from its graph."""
        ctx.set_materialize_grads(False)  # None for an output that nobody used
        ctx.weights, ctx.kept = weights, kept
        ctx.inputs = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
        with torch.enable_grad():
            outputs = run(*ctx.inputs)
        ctx.edges = [get_gradient_edge(y) if isinstance(y, Tensor) and y.requires_grad else None for y in outputs]
        cut = [y.detach() if isinstance(y, Tensor) else y for y in outputs]
        ctx.mark_non_differentiable(
            *(y for y, edge in zip(cut, ctx.edges, strict=True) if isinstance(y, Tensor) and not edge)
        )
        return tuple(cut)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of the inputs; W is left what it needs."""
        pairs = [(e, g) for e, g in zip(ctx.edges, gradients, strict=True) if e is not None and g is not None]
        edges, known = [e for e, _ in pairs], [g for _, g in pairs]
        wanted = [x for x in ctx.inputs if isinstance(x, Tensor) and x.requires_grad]
        ctx.kept.append((edges, known, ctx.weights))
        found = iter(torch.autograd.grad(edges, wanted, known, retain_graph=True, allow_unused=True) if wanted else ())
        of_inputs = [next(found) if isinstance(x, Tensor) and x.requires_grad else None for x in ctx.inputs]
        return None, None, None, None, *of_inputs


def backward_weights(kept: Kept) -> None:
    """W: adds the gradients of all weights in `kept` to their `.grad`, and frees what was kept for that."""
    edges = [edge for those, _, _ in kept for edge in those]
    gradients = [gradient for _, known, _ in kept for gradient in known]
    leaves: dict[Any, Any] = {key: leaf for _, _, weights in kept for w in weights for key, leaf in _leaves(w)}
    kept.clear()
    if edges:
        torch.autograd.backward(edges, gradients, inputs=list(leaves.values()))


def _leaves(weight: Tensor) -> Iterator[tuple[Any, Tensor | GradientEdge]]:
    """The leaves behind a weight, each with a key of its own: itself, or what a wrapper made the whole weight of."""
    if weight.is_leaf:
        yield weight, weight
    else:
        for edge in _behind(get_gradient_edge(weight)):
            yield edge.node, edge


def _behind(edge: GradientEdge) -> Iterator[GradientEdge]:
    if hasattr(edge.node, "variable"):
        yield edge
    for node, number in edge.node.next_functions:
        if node is not None:
            yield from _behind(GradientEdge(node, number))
