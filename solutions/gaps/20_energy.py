"""The gaps of chapter 20, solved."""


def energy_best_clock(static_w, dynamic_w, least):
    best = (static_w / dynamic_w / 2) ** (1 / 3)
    return sorted((least, best, 1.0))[1]


def energy_waiting_share(n, step_s, late_s):
    waited = (n - 1) * late_s
    worked = n * step_s + late_s
    return waited / (waited + worked)


def energy_tonnes(gpu_hours, gpu_w, server_share, pue, kg_per_kwh):
    server_kwh = gpu_hours * gpu_w / 1000 / server_share
    return server_kwh * pue * kg_per_kwh / 1000
