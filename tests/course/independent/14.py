from independent.reading import KEPT, least, read


def perf_mfu(text):
    q = read(text, "{b} billion weights", "{layers} layers of width {h}, sequences of {s} tokens")
    tera = read(text, "({tera} TFLOP/s").tera
    rate = read(text, "does {rate} tokens").rate
    forward = 2 * q.b * 1e9
    for _ in range(q.layers):
        forward += 2 * q.h * q.s  # a query with all keys
        forward += 2 * q.s * q.h  # the scores with all values
    return 100 * rate * (forward + 2 * forward) / (tera * 1e12)


perf_mfu.within = 1e-3  # the question says the weights with four digits


def perf_exposed(text):
    q = read(text, "backward pass of {backward} ms fills {buckets} equal buckets of {mb} MB", "{n} ranks", "{gb} GB/s")
    piece_ms = q.mb / q.buckets / q.n / q.gb  # a message of the ring
    link = 0.0
    for bucket in range(1, q.buckets + 1):
        link = max(link, bucket * q.backward / q.buckets)
        for _ in range(2 * (q.n - 1)):
            link += piece_ms
    return link - q.backward


def perf_recompute(text):
    q = read(text, "{layers} layers of width {h} on one GPU, {batch} sequence", "of {seq} tokens")
    per_token = {"input of every layer": q.layers * KEPT["input of the first norm"][0]}
    per_token |= {name: size for name, (size, _) in KEPT.items() if name != "input of the first norm"}
    return sum(per_token.values()) * q.h * q.batch * q.seq / 1e9


def perf_critical(text):
    q = read(text, "at least {steps} steps", "critical batch is {critical} sequences", "batch of {batch},")
    fewest = q.steps * q.critical  # sequences; McCandlish: (S / S_min - 1) (E / E_min - 1) = 1

    def beyond(sequences):
        return (sequences / q.batch / q.steps - 1) * (sequences / fewest - 1) >= 1

    return least(beyond, max(fewest, q.steps * q.batch), 1e12) / 1e6
