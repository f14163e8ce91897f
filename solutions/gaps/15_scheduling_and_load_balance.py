"""The gaps of chapter 15, solved."""


def sched_weights(shares):
    return [len(shares) * share / sum(shares) for share in shares]


def sched_may_backfill(now_s, free, head_gpus, running, gpus, limit_s):
    for start_s in sorted(end_s for _, end_s in running):
        later = free + sum(held for held, end_s in running if end_s <= start_s)
        if later >= head_gpus:
            in_time = now_s + limit_s <= start_s
            return gpus <= free and (in_time or gpus <= later - head_gpus)
    return False


def sched_drf(capacity, needs):
    tasks, free = [0] * len(needs), list(capacity)
    dominant = [max(n / c for n, c in zip(need, capacity, strict=True)) for need in needs]
    while fits := [i for i, need in enumerate(needs) if all(n <= f for n, f in zip(need, free, strict=True))]:
        least = min(fits, key=lambda i: tasks[i] * dominant[i])
        tasks[least] += 1
        free = [f - n for f, n in zip(free, needs[least], strict=True)]
    return tasks
