"""What a `DDP` has beside its algorithm: the model's names in a state dict, ranks without a batch, no copies."""

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from parallel_lab.agree.arguments import no_positional
from parallel_lab.data_parallel.extras.join import joined
from parallel_lab.runtime.group import member


class Wrapper(nn.Module):
    """A module that stands around another.

    Args:
        model: the model inside.
        positional: further arguments that were given without a name. There should be none.
        group: whose ranks share the work; by default all.

    Attributes:
        module: the model inside.
        group: the group, or the default group.

    Raises:
        TypeError: there is an argument without a name.
    """

    def __init__(self, model: nn.Module, positional: tuple, group: dist.ProcessGroup | None) -> None:
        no_positional(type(self).__name__, positional, "model, group=...")
        super().__init__()
        self.module = model
        self.group = member(group)

    def join(self, optimizer: torch.optim.Optimizer | None = None) -> AbstractContextManager[None]:
        """Lets ranks have different numbers of batches: put each rank's loop over its own batches inside.

        A rank that has run out contributes zeros until all have. The mean stays one over all n ranks. At the end,
        ranks that ran out take over weights and buffers, and the state of `optimizer` if given, of one that was there
        to the end. Without it their moments are old, and the next step would differ from the others'. Costs one
        all-reduce of 32 bytes a forward (with buffers) and a backward.
        """
        return joined(self, optimizer)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model: names have no prefix, so it loads without DDP too."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the wrapped model. Every rank must load the same."""
        return self.module.load_state_dict(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuses to be copied or pickled, with TypeError."""
        raise TypeError("copy or pickle its .module: a DDP itself has a process group and hooks of this process")
