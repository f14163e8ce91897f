"""Every exercise of the course, by name, in the order of the chapters; of each chapter its gaps come first."""

from importlib import import_module

from parallel_lab.grading.gaps import GAPS

_NAMES = (
    *("sum_of_ranks",),
    *("step_budget",),
    *("tree_broadcast", "ring_all_reduce", "all_to_all", "ring_shift"),
    *("training_framework", "bucketed_ddp"),
    *("asynchronous_sgd", "local_sgd"),
    *("one_server", "parameter_server"),
    *("sharded_optimizer", "accumulated_step", "gathered_layer", "prefetched_step", "hybrid_sharding"),
    *("split_network",),
    *("column_row_pair", "vocab_loss", "sequence_block"),
    *("schedule_1f1b", "schedule_zb_h1", "pipeline_executor"),
    *("expert_dispatch",),
    *("ring_attention",),
    *("layout_groups", "wrong_gradient", "norm_over_axes"),
    *("dynamic_scale", "reproducible_sum"),
    *("per_channel_quantization", "prune_and_tune"),
    *("top_k_hook", "choose_buckets", "find_bottleneck"),
    *("balanced_batches", "gang_backfill"),
    *("crash_safe_checkpoint", "exactly_once"),
    *("streaming_shuffle", "near_duplicates"),
    *("metrics_over_ranks", "uneven_perplexity"),
    *("authenticated_messages", "robust_mean"),
    *("power_cap",),
    *("layout_memory", "rank_layouts"),
    *("step_time",),
    *("clinic",),
)
_LONGER = [import_module(f"{__name__}.{name}").EXERCISE for name in _NAMES]
EXERCISES = {one.name: one for one in sorted([*GAPS, *_LONGER], key=lambda one: one.chapter)}
