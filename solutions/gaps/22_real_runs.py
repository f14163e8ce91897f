"""The gaps of chapter 22, solved."""


def runs_step_s(gpu_hours, tokens, gpus, batch, seq):
    calendar_s = gpu_hours / gpus * 3600
    steps = tokens / (batch * seq)
    return calendar_s / steps


def runs_most_gpus(batch, microbatch, pp, chunks, tp, bubble):
    pipelines, m = 0, 1
    while m * microbatch <= batch:
        if (pp - 1) / (chunks * m) <= bubble:
            pipelines = max(pipelines, batch // (m * microbatch))
        m += 1
    return pp * tp * pipelines


def runs_hours_between(failures, days, gpus, other_gpus):
    gpu_hours_per_failure = days * 24 * gpus / failures
    return gpu_hours_per_failure / other_gpus
