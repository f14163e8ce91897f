from independent.reading import lowest, read
from scipy.optimize import linprog


def energy_clock(text):
    q = read(text, "draws {static} W + {dynamic} W")

    def joules(clock):
        return (q.static + q.dynamic * clock**3) / clock

    return 100 * (1 - joules(lowest(joules, 0.01, 1)) / joules(1))


energy_clock.within = 1e-4


def energy_deadline(text):
    q = read(
        text, "{steps} steps must be over in {deadline} s", "takes {slow} s at {watts} W", "and {fast} s at {more} W"
    )
    found = linprog(
        [q.slow * q.watts, q.fast * q.more], A_ub=[[q.slow, q.fast]], b_ub=[q.deadline], A_eq=[[1, 1]], b_eq=[q.steps]
    )
    return found.fun / 1e3


def energy_target(text):
    q = read(text, "needs {a} epochs of {b} s at {c} W", "1,024 needs {d} epochs of {e} s at {f} W")
    small, large = (
        sum(seconds * watts for _ in range(epochs)) for epochs, seconds, watts in ((q.a, q.b, q.c), (q.d, q.e, q.f))
    )
    return large / small


def energy_wait(text):
    q = read(text, "{n} ranks compute for {step} s", "for {late} s longer", "draws {power} of the power")
    working_s = [q.step] * (q.n - 1) + [q.step + q.late]
    waiting = [(max(working_s) - own) * q.power for own in working_s]
    return 100 * sum(waiting) / (sum(waiting) + sum(working_s))


def energy_carbon(text):
    q = read(text, "took {hours} GPU hours", "drew {watts} W", "PUE is {pue}", "emits {kg} kg per kWh")
    joules = q.hours * 3600 * q.watts
    at_the_meter = joules + joules * (q.pue - 1)  # cooling and conversion come on top
    return at_the_meter / 3.6e6 * q.kg / 1000
