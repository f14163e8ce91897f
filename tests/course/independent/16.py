from independent.reading import least, lowest, read
from scipy.stats import poisson


def fault_mtbf(text):
    q = read(text, "on {gpus} GPUs", "interrupted {times} times in {days} days", "your job on {mine} GPUs")
    gpu_hours = q.gpus * q.days * 24
    return gpu_hours / q.times / q.mine  # GPU hours from one interruption to the next, spread over mine


def waste(every_s, save_s, mtbf_s):
    return save_s / every_s + every_s / 2 / mtbf_s


def fault_interval(text):
    q = read(text, "fails every {hours} h", "stops it for {save} s", "saves {times} times as far")
    best = lowest(lambda x: waste(x, q.save, 3600 * q.hours), 1, 1e6)
    return 100 * waste(q.times * best, q.save, 3600 * q.hours)


fault_interval.within = 1e-4


def fault_checkpoint(text):
    q = read(text, "{b} billion parameters, {size} bytes each", "over {gpus} GPUs", "send {rank} GB/s")
    store = read(text, "takes {store} GB/s").store

    def written(seconds):
        through = min(q.gpus * min(seconds * q.rank, q.b * q.size / q.gpus), seconds * store)
        return through >= q.b * q.size * (1 - 1e-12)

    return least(written, 0, 1e6)


def fault_goodput(text):
    q = read(text, "every {hours} h", "loaded takes {restart} min", "every {every} min", "stops it for {save} s")
    left_s = 3600 * q.hours - 60 * q.restart - 60 * q.every / 2
    rounds = left_s / (60 * q.every + q.save)
    return 100 * rounds * 60 * q.every / (3600 * q.hours)


def fault_spares(text):
    q = read(text, "on {nodes} nodes loses {rate} of them", "back after {days} day", "at least {aim} enough")
    return int(poisson.ppf(q.aim, q.nodes * q.rate / 1000 * q.days))
