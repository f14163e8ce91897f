"""The gaps of the chapters: small exercises that are solved where they stand, in the order of the text."""

from parallel_lab.grading.gaps import (
    collectives,
    data_parallel,
    language_models,
    parameter_server,
    pipeline,
    sharded,
    synchronization,
)

GAPS = (
    *language_models.GAPS,
    *collectives.GAPS,
    *data_parallel.GAPS,
    *synchronization.GAPS,
    *parameter_server.GAPS,
    *sharded.GAPS,
    *pipeline.GAPS,
)
