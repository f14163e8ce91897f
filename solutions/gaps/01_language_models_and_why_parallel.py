"""The gaps of chapter 01, solved."""

import math


def bytes_per_parameter(mixed, moments):
    weight, gradient, copy = (2, 2, 4) if mixed else (4, 4, 0)
    return weight + gradient + copy + 4 * moments


def gpus_needed(parameters, tokens, days, flops_per_s, memory_bytes):
    flops_of_one = flops_per_s * days * 24 * 3600
    for_time = 6 * parameters * tokens / flops_of_one
    for_room = 16 * parameters / memory_bytes
    return math.ceil(max(for_time, for_room))


def save_interval_s(save_s, mtbf_h, machines):
    job_mtbf_s = 3600 * mtbf_h / machines
    return math.sqrt(2 * save_s * job_mtbf_s)
