from datetime import timedelta

import torch
from independent.reading import KEPT, lowest, read, says


def gpu_days(text):
    q = read(text, "{b} billion parameters, {t} trillion tokens, {gpus} H100s ({peak} TFLOP/s) at {mfu}% MFU")
    products = ("forward", "gradient of the input", "gradient of the weight")  # each a multiplication and an addition
    token_flops = sum(2 * q.b * 1e9 for _ in products)
    tokens_per_s = q.peak * 1e12 * q.mfu / 100 / token_flops  # of one GPU
    return timedelta(seconds=q.t * 1e12 / q.gpus / tokens_per_s) / timedelta(days=1)


def state_bytes(text):
    q = read(text, "{b} billion parameters")
    kept = {"weight": torch.bfloat16, "its copy": torch.float32, "mean": torch.float32, "square": torch.float32}
    if "float32 gradients only" not in text:
        kept["gradient"] = torch.bfloat16
    if "16-bit gradients only" not in text:
        kept["gradient in float32"] = torch.float32
    ranks = read(text, "cut over {n} ranks").n if says(text, "cut over {} ranks") else 1
    return sum(q.b * kind.itemsize for kind in kept.values()) / ranks


def activation_bytes(text):
    q = read(text, "{layers} layers of width {width}", "sequence of {seq} tokens")
    each = 2 if "full recomputation" in text else sum(size for size, _ in KEPT.values())
    return sum(each * q.seq * q.width for _ in range(q.layers)) / 1e9


def job_mtbf(text):
    q = read(text, "fails once in {years} years", "has {gpus} GPUs", "takes {save} s")
    failures_per_s = sum(1 / (q.years * 365.25 * 24 * 3600) for _ in range(q.gpus))
    return lowest(lambda x: q.save / x + failures_per_s * x / 2, 1, 1e7) / 60


job_mtbf.within = 1e-4
