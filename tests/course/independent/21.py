from independent.reading import PRODUCTS, read, ring_sent, steps_of


def choose_cuts(text):
    q = read(text, "{b} B parameters; weights in {w} bytes, gradients in {g}, and {o} bytes of optimizer", "dp = {dp}.")
    room = read(text, "fill {share} % of {gb} GB")
    cuts = 1
    while sum(q.b * size / cuts for size in (q.w, q.g, q.o / q.dp)) > room.share / 100 * room.gb:
        cuts *= 2
    return cuts


def choose_tp(text):
    q = read(text, "of width {h}", "reaches {tera} TFLOP/s, its link {gb} GB/s", "at most {percent} %")
    flops = sum(3 * 2 * rows * columns * q.h**2 for rows, columns in PRODUCTS)

    def share(n):  # per token, of the products' time
        return 4 * ring_sent(n, 2 * q.h) / (q.gb * 1e9) / (flops / n / (q.tera * 1e12))

    n = 1
    while share(2 * n) <= q.percent / 100:
        n *= 2
    return n


def choose_more_gpus(text):
    q = read(text, "{gpus} GPUs, tp {tp}, pp {pp}", "a batch of {batch} sequences in microbatches of {b}.")
    times = read(text, "gets {times} times as many").times
    dp = q.gpus // q.tp // q.pp
    return steps_of(q.pp, q.batch // dp // q.b) / steps_of(q.pp, q.batch // (dp * times) // q.b)


def choose_regret(text):
    rows = text.split("measured: ")[1].split(". One")[0].split("; ")
    times = [read(row, ": {predicted} s and {measured} s") for row in rows]
    chosen = min(times, key=lambda row: row.predicted)
    return 100 * max(chosen.measured / row.measured - 1 for row in times)


def choose_upgrade(text):
    q = read(text, "A step: {compute} s", "{inside} s of tensor", "{messages} s of messages", "which {hidden} s")
    times = read(text, "that is {times} times").times
    seen = q.messages - q.hidden
    hour = [3600 / (q.compute + q.inside + seen / faster) for faster in (1, times)]  # steps
    return 100 * (hour[1] - hour[0]) / hour[0]
