"""The gaps of the chapters: small exercises that are solved where they stand, in the order of the text."""

from parallel_lab.grading.gaps import (
    collectives,
    compression,
    contexts,
    data_parallel,
    hybrid,
    language_models,
    model_parallel,
    parameter_server,
    performance,
    pipeline,
    precision,
    sharded,
    storage_and_data,
    synchronization,
    tensor_parallel,
)

GAPS = (
    *language_models.GAPS,
    *collectives.GAPS,
    *data_parallel.GAPS,
    *synchronization.GAPS,
    *parameter_server.GAPS,
    *sharded.GAPS,
    *model_parallel.GAPS,
    *tensor_parallel.GAPS,
    *pipeline.GAPS,
    *contexts.GAPS,
    *hybrid.GAPS,
    *precision.GAPS,
    *compression.GAPS,
    *performance.GAPS,
    *storage_and_data.GAPS,
)
