import numpy as np
from independent.reading import read


def wrong_lemon(text):
    q = read(text, "{share}% of the machines", "gets {machines} machines")
    some = 0.0
    for _ in range(q.machines):
        some += (1 - some) * q.share / 100
    return 100 * some


def wrong_hang(text):
    q = read(text, "on {gpus} GPUs hangs", "timeout is {timeout} minutes", "takes {restart} minutes")
    every = read(text, "come every {every} minutes").every
    lost = (np.arange(600) + 0.5) * every / 600  # minutes since the last checkpoint, at any moment
    return q.gpus * np.mean(q.timeout + q.restart + lost) / 60


def wrong_straggler(text):
    q = read(text, "{n} ranks share", "{others} of them need {each} s")
    work = np.full(q.n, float(q.each))
    work[:-1] += work[-1] / q.others  # the seconds of its samples on a fast rank
    return work[:-1].max()


def wrong_world(text):
    q = read(text, "A job on {old} ranks logs gradient norms of about {norm}.", "restarted on {new},")
    gradients = np.full((q.new, 3), q.norm / 3**0.5)
    return float(np.linalg.norm(gradients.sum(axis=0) / q.old))
