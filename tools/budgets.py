"""What the tests of each room may cost, in seconds of the processor, and to which room a test belongs."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TECHNIQUES = (
    "collectives",
    "data_parallel",
    "synchronization",
    "parameter_server",
    "pipeline",
    "tensor_parallel",
    "hybrid",
    "expert_parallel",
    "context_parallel",
    "compress",
    "precision",
    "performance",
    "systems/evaluation",
    "systems/resilience",
    "systems/storage",
    "systems/data",
    "systems/balance",
    "systems/scheduling",
    "systems/security",
    "systems/energy",
    "systems/serving",
    "systems/reinforcement",
    "planner",
    "clinic",
    "interview",
)
TECHNIQUE_S, EXERCISE_S, NOTEBOOK_S = 40.0, 6.0, 40.0
# A processor that other programs share does less in a second: caches are cold, and two threads may share one core.
SLACK = 2.0
YARDSTICK_S = 0.004  # of the piece of work in measure.py, where the budgets below were measured
BUDGETS = dict.fromkeys(TECHNIQUES, TECHNIQUE_S) | {
    # What these cost today, techniques with their lines traced; the aim is 40 s a room or notebook, 6 s an exercise.
    "data_parallel": 110.0,
    "pipeline": 75.0,  # eight plans, and the executor with each
    "hybrid": 180.0,  # every axis, and launches of 8 ranks; torchrun and srun load torch anew in each rank
    "tensor_parallel": 60.0,  # with the matrix products
    "runtime": 75.0,
    "systems/resilience": 150.0,  # faults: nearly every case starts ranks again, after they were killed or hung
    "planner": 110.0,  # published rows are fitted, the search is held against trying all, eight ranks run nine layouts
    "interview": 110.0,  # decks in Anki itself, pages printed by a browser, boards and rounds on real ranks
    "clinic": 75.0,  # twenty jobs, each run broken, mended, and with the mistakes of a tired person
    "exercise bucketed_ddp": 9.0,
    "exercise gathered_layer": 16.0,
    "exercise accumulated_step": 10.0,
    "exercise prefetched_step": 8.0,
    "exercise parameter_server": 8.0,
    "exercise sharded_optimizer": 10.0,
    "exercise sequence_block": 12.0,
    "exercise ring_attention": 18.0,
    "exercise expert_dispatch": 12.0,
    "exercise top_k_hook": 8.0,
    "exercise reproducible_sum": 10.0,
    "exercise split_network": 8.0,
    "exercise pipeline_executor": 10.0,
    "exercise training_framework": 10.0,
    "exercise layout_groups": 8.0,  # eight ranks, as the two below
    "exercise norm_over_axes": 10.0,
    "exercise wrong_gradient": 16.0,
    "exercise find_bottleneck": 8.0,
    "exercise crash_safe_checkpoint": 16.0,  # a process is forked and killed at each call of a save
    "exercise step_budget": 12.0,
    "exercise metrics_over_ranks": 14.0,  # nine launches for one answer, most of 3 and 4 ranks
    "exercise robust_mean": 14.0,  # nine launches for one answer, of 2 to 5 ranks
    "exercise uneven_perplexity": 9.0,
    "exercise streaming_shuffle": 10.0,
    "exercise authenticated_messages": 14.0,  # six launches for one answer, each of 3 ranks
    "exercise near_duplicates": 16.0,  # three steps, and seven answers on up to four ranks
    "exercise clinic": 9.0,  # five jobs on two to four ranks
    "exercise power_cap": 9.0,  # nine answers, most of one rank
    "exercises": 30.0,  # the gaps among them
    "01_language_models_and_why_parallel": 60.0,
    "03_data_parallel": 50.0,
    "04_gradient_synchronization": 80.0,
    "11_hybrid_parallel": 60.0,  # all axes need eight ranks
    "systems/scheduling": 60.0,  # daemons of Slurm, and jobs that it starts
    "15_scheduling_and_load_balance": 60.0,  # a Slurm of four nodes, two Prometheus servers, 80 simulated clusters
    "16_fault_tolerance": 70.0,  # ranks that are killed and started again
    "17_storage_and_data": 80.0,  # four servers; five augmentations with five seeds each
    "18_evaluation": 60.0,  # seeds: 30 small classifiers and 18 small language models are trained
    "22_real_runs": 55.0,  # a real model of 135 M parameters is read, six kinds of data are learned, a dozen launches
    "19_security": 60.0,  # seeds: 77 small classifiers, under rules of aggregation and with privacy
    "cli": 70.0,  # an update is tried on a clone of the whole course
    "parameter_server": 50.0,
    "techniques": 35.0,  # the tests over all techniques
    "examples": 230.0,  # torchrun loads torch anew in each rank
    "course": 80.0,  # each of 102 drills on 200 seeds, against another computation
    "grading": 40.0,
    "tools": 40.0,
    "browser": 230.0,  # the web book is built once, a thousand pages, and read by a browser and by axe
}
OTHERS_S = 20.0  # a room without a line above
BETWEEN = "between tests"  # loading torch, collecting, starting fork servers; no room's, and without a budget
COVERED_PERCENT = 90.0  # of the lines of each technique, ranks included


def exercises() -> list[str]:
    """The names of the exercises, longest first."""
    found = {path.stem for path in ROOT.glob("parallel_lab/*/exercises/*.md") if path.stem[0] != "_"}
    return sorted((re.sub(r"^\d\d_", "", name) for name in found), key=len, reverse=True)


def notebooks() -> list[str]:
    """The names of the notebooks, `NN_name`."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def room_of(nodeid: str) -> str:
    """The room of a test: its folder below tests/ (two of them in systems), or its `exercise NAME` or notebook."""
    path = Path(nodeid.split("::")[0])
    if path.suffix == ".ipynb":
        return path.stem
    room = path.parts[1] if len(path.parts) > 2 else path.stem
    if room == "systems":
        return "/".join(path.parts[1:3])
    if room == "exercises":
        return next((f"exercise {name}" for name in exercises() if name in nodeid), room)
    return room


def budget_of(room: str) -> float:
    """The seconds that a room may take; infinity for what lies between tests."""
    if room == BETWEEN:
        return float("inf")
    if room in BUDGETS:
        return BUDGETS[room]
    if room.startswith("exercise "):
        return EXERCISE_S
    return NOTEBOOK_S if room in notebooks() else OTHERS_S


def slowness(yardsticks: Sequence[float]) -> float:
    """How many times as long work takes here as where the budgets were measured; 1 at least."""
    return max(1.0, statistics.median(yardsticks) / YARDSTICK_S) if yardsticks else 1.0


def over(spent: Mapping[str, float], slow: float = 1.0) -> list[str]:
    """The rooms that took more than their budget and the slack, on a machine that is `slow` times as slow."""
    return [room for room, seconds in spent.items() if seconds > budget_of(room) * SLACK * slow]


def table(spent: Mapping[str, float], slow: float = 1.0) -> str:
    """Seconds and budget of each room, the dearest first."""
    lines = [f"{'processor seconds by room':<36}    used  budget"]
    for room, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        budget = budget_of(room)
        above = "  above, within the slack" if seconds > budget else ""
        mark = "  OVER BUDGET" if room in over(spent, slow) else above
        lines.append(f"{room:<36}{seconds:8.1f}{f'{budget:8.0f}' if budget < float('inf') else ' ' * 8}{mark}")
    if slow > 1:
        lines.append(f"a piece of work takes {slow:.2f} times as long here as where budgets were measured: limits too")
    return "\n".join(lines)
