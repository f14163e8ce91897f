from independent.reading import KEPT, PRODUCTS, read, ring_sent

FORWARD = ("behind attention's projection", "behind the MLP's second product")
BACKWARD = ("before QKV", "before the MLP's first product")


def tensor_bytes(text):
    q = read(text, "{n} tensor-parallel ranks, {layers} blocks of width {width}", "microbatches of {tokens} tokens")
    return sum(ring_sent(q.n, 2 * q.tokens * q.width) for _ in (*FORWARD, *BACKWARD) for _ in range(q.layers)) / 1e9


def tensor_share(text):
    q = read(text, "h = {h}", "on {n} ranks at {tera} TFLOP/s", "links of {gb} GB/s")
    sending_s = sum(ring_sent(q.n, 2 * q.h) for _ in (*FORWARD, *BACKWARD)) / (q.gb * 1e9)
    flops = sum(3 * 2 * rows * columns * q.h**2 for rows, columns in PRODUCTS)
    return sending_s / (flops / q.n / (q.tera * 1e12))


def sequence_memory(text):
    q = read(text, "{layers} blocks, h = {h}, {tokens} tokens, {n} ranks")
    tensor = sum(size / q.n if cut else size for size, cut in KEPT.values())
    sequence = sum(size / q.n for size, _ in KEPT.values())
    return q.layers * q.tokens * q.h * (tensor - sequence) / 1e9


def vocabulary_loss(text):
    q = read(text, "{tokens} tokens", "cut over {n} ranks, float32")
    reduced = ("the largest logit", "the sum of exponentials", "the target's logit")
    return sum(ring_sent(q.n, 4 * q.tokens) for _ in reduced) / 1024
