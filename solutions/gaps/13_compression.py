"""The gaps of chapter 13, solved."""


def comp_global(layers, sparsity):
    everything = sorted((abs(weight), place, i) for place, layer in enumerate(layers) for i, weight in enumerate(layer))
    gone = {(place, i) for _, place, i in everything[: round(sparsity * len(everything))]}
    return [[(place, i) not in gone for i in range(len(layer))] for place, layer in enumerate(layers)]


def comp_codes(rows, bits):
    codes = []
    for row in rows:
        scale = max(abs(weight) for weight in row) / (2 ** (bits - 1) - 1)
        codes.append([round(weight / scale) if scale else 0 for weight in row])
    return codes


def comp_feedback(gradients, keep):
    left, sent = [0.0] * len(gradients[0]), []
    for gradient in gradients:
        left = [a + b for a, b in zip(left, gradient, strict=True)]
        now = [0.0] * len(left)
        for place in sorted(range(len(left)), key=lambda i: abs(left[i]), reverse=True)[:keep]:
            now[place], left[place] = left[place], 0.0
        sent.append(now)
    return sent
