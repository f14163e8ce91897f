import torch
from independent.reading import least, read


def prec_update(text):
    q = read(text, "A weight near {weight} is kept in {name:w}")
    weight = torch.tensor(q.weight, dtype=getattr(torch, q.name))

    def counts(update):
        return bool((weight.double() + update).to(weight.dtype) != weight)

    return 1e6 * least(counts, 0, q.weight)


prec_update.within = 1e-3  # a number in float64 is rounded to float32 first, then to 16 bits


def prec_scale(text):
    q = read(text, "starts at 2^{start}", "after {interval} clean steps", "Of {steps} steps, numbers ")
    overflow = {int(number) for number in text.split("steps, numbers ")[1].split(" overflow")[0].split(", ")}
    scale, clean = 2.0**q.start, 0
    for step in range(1, q.steps + 1):
        clean = 0 if step in overflow else clean + 1
        if step in overflow:
            scale /= 2
        elif clean == q.interval:
            scale, clean = 2 * scale, 0
    return len(bin(int(scale))) - 3


def prec_float8(text):
    q = read(text, "A matrix of {rows} x {columns}")
    number, scale, height, width = 1.0, torch.float32.itemsize, 1, 128
    if "128 x 128" in text:
        height = 128
    if "MX" in text:
        scale, width = 1, 32
    if "MXFP4" in text:
        number = 0.5
    tiles = len(range(0, q.rows, height)) * len(range(0, q.columns, width))
    return (q.rows * q.columns * number + tiles * scale) / 1e6


def prec_amdahl(text):
    q = read(text, "float32 {products} % of", "{memory} % are bound", "{rest} % are launches", "are {factor} times")
    spent = {"products": q.products, "memory": q.memory, "rest": q.rest}
    faster = {"products": q.factor, "memory": torch.float32.itemsize / torch.bfloat16.itemsize, "rest": 1}
    return sum(spent.values()) / sum(spent[part] / faster[part] for part in spent)
