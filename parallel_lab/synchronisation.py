"""The folder `synchronization` under its old spelling, for programs that were written before it was renamed.

`synchronous.train(model, batches, ...)` is `synchronization.train(Synchronous(), model, batches, ...)`, and
`parameter_server.train`, which this module brings back, is the same with `servers=1`. New programs call that.
"""

import warnings
from functools import partial
from types import SimpleNamespace

from parallel_lab import parameter_server
from parallel_lab.synchronization import Synchronous, train

warnings.warn("parallel_lab.synchronisation is parallel_lab.synchronization now", DeprecationWarning, stacklevel=2)

synchronous = SimpleNamespace(train=partial(train, Synchronous()))
parameter_server.train = partial(train, Synchronous(), servers=1)  # type: ignore[attr-defined]
