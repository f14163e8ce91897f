"""Rules fire as Prometheus says, on synthetic series and on a running job; metrics are what a rank did."""

import json
import random
import shutil
import subprocess
import time
from functools import partial

import pytest
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.systems.scheduling import alarms
from parallel_lab.systems.scheduling.alarms import Alert, Evaluator, down, rules_file, slow, stands_still, starved
from parallel_lab.systems.scheduling.exporter import COMPUTE, COMPUTING, HEARTBEAT, QUEUE, UP, Exporter, ask, scrape
from parallel_lab.systems.scheduling.prometheus import missing
from parallel_lab.systems.scheduling.watched import Over, _Watcher, watched

pytestmark = pytest.mark.usefixtures("by_value")
RULES = [stands_still(3, for_s=2), slow(1.5, for_s=3), starved(for_s=1), down(for_s=2)]


def test_an_alarm_is_pending_until_it_has_held_for_long_enough():
    own = Evaluator([starved(for_s=2)])
    seen = []
    for now_s, ready in enumerate([5, 0, 0, 0, 0, 1, 0, 0]):
        alerts = own.look({QUEUE: {"0": ready, "1": 4}}, now_s)
        assert all(each.rank == "0" for each in alerts)
        seen.append([each.state for each in alerts])
    assert seen == [[], ["pending"], ["pending"], ["firing"], ["firing"], [], ["pending"], ["pending"]]
    assert str(Alert("Starved", "0", "firing")) == "Starved: rank 0 (firing)"


def test_who_stands_still_is_told_from_those_who_wait_for_him():
    beats = {HEARTBEAT: {"0": 10.0, "1": 10.0, "2": 9.9}, COMPUTING: {"0": 0, "1": 0, "2": 1}}
    assert Evaluator([stands_still(5)]).look(beats, 20) == [Alert("StandsStill", "2", "firing")]
    assert not Evaluator([stands_still(5)]).look(beats, 14)


def test_a_dead_rank_needs_a_rule_of_its_own():
    samples = {UP: {"0": 1, "1": 0}, HEARTBEAT: {"0": 100}, COMPUTING: {"0": 1}, COMPUTE: {"0": 1.0}}
    assert Evaluator([stands_still(5), slow(1.5)]).look(samples, 100) == []
    assert Evaluator(RULES[3:]).look(samples, 100) == [Alert("Down", "1", "pending")]


def series(seed, seconds=40):
    """Samples of three ranks at each second; ranks stay a while as they are, so that some alarms fire."""
    dice, looks = random.Random(seed), []
    state = {rank: {} for rank in "012"}
    for now_s in range(seconds):
        for own in state.values():
            if now_s == 0 or dice.random() < 0.25:
                own.update({COMPUTE: dice.choice([1, 1, 2, 3]), QUEUE: dice.choice([0, 1, 4])})
                own.update({COMPUTING: dice.choice([0, 1]), UP: dice.choice([0, 1, 1])})
                own[HEARTBEAT] = now_s
        looks.append({name: {rank: own[name] for rank, own in state.items()} for name in state["0"]})
    return looks


def unit_test(looks):
    """A test file for promtool: the series, and which alerts the own evaluator has firing at each second."""
    own, lines = Evaluator(RULES), ["rule_files: [rules.yml]", "evaluation_interval: 1s", "tests:", "- interval: 1s"]
    lines.append("  input_series:")
    for name in looks[0]:
        for rank in "012":
            values = " ".join(f"{look[name][rank]}" for look in looks)
            lines.append(f"  - {{series: '{name}{{rank=\"{rank}\"}}', values: '{values}'}}")
    lines.append("  alert_rule_test:")
    fired = 0
    for now_s, look in enumerate(looks):
        alerts = own.look(look, now_s)
        for rule in RULES:
            lines += [f"  - eval_time: {now_s}s", f"    alertname: {rule.name}"]
            firing = [each for each in alerts if each.name == rule.name and each.state == "firing"]
            fired += len(firing)
            expected = [f"{{exp_labels: {{rank: {each.rank!r}}}}}" for each in firing]
            lines.append(f"    exp_alerts: [{', '.join(expected)}]")
    return "\n".join(lines), fired


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here: apt-get install prometheus")
def test_promtool_finds_the_alarms_that_the_own_evaluator_finds(tmp_path):
    (tmp_path / "rules.yml").write_text(rules_file(RULES))
    for seed in range(3):
        text, fired = unit_test(series(seed))
        assert fired > 10
        (tmp_path / "test.yml").write_text(text)
        done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    other = text.replace("exp_alerts: []", "exp_alerts: [{exp_labels: {rank: '0'}}]", 1)
    (tmp_path / "test.yml").write_text(other)
    done = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0, "a wrong expectation is seen"


def test_a_rank_exports_what_it_did(tmp_path):
    exporter = Exporter()
    exporter.queue.set(3)
    with exporter.serving(tmp_path, 7) as port:
        before_s = time.time()
        with exporter.step():
            during = scrape(tmp_path)
        exporter.exchanged(tokens=50)
        exporter.exchanged(tokens=50)
        after = scrape(tmp_path)
        assert during[COMPUTING]["7"] == 1 and after[COMPUTING]["7"] == 0 and after[UP] == {"7": 1}
        assert after["training_tokens_total"]["7"] == 100 and after["training_step_seconds_count"]["7"] == 2
        assert after[QUEUE]["7"] == 3 and after[COMPUTE]["7"] > 0
        assert before_s - 1 <= during[HEARTBEAT]["7"] <= after[HEARTBEAT]["7"] <= time.time() + 1
        assert 'training_step_seconds_bucket{le="+Inf"} 2.0' in ask(port, "/metrics")
    gone = scrape(tmp_path)
    assert gone == {UP: {"7": 0.0}}, "who has ended is down, and says nothing else"


def test_ranks_export_side_by_side(tmp_path):
    def fn(folder):
        exporter = Exporter()
        with exporter.serving(folder, dist.get_rank()):
            exporter.exchanged(tokens=10 * (dist.get_rank() + 1))
            dist.barrier()
            seen = scrape(folder)
            dist.barrier()
        return seen["training_tokens_total"]

    assert launch(fn, tmp_path, ranks=3).results == [{"0": 10, "1": 20, "2": 30}] * 3


def stops(rank, step, over, exporter):
    """Rank 2 stands still from its fourth step on."""
    if rank == 2 and step >= 3:
        over.wait()
    time.sleep(0.02)


def drags(rank, step, over, exporter):
    """Rank 1 is many times slower; the machine's own noise is far below."""
    time.sleep(0.4 if rank == 1 else 0.02)


def starves(rank, step, over, exporter):
    """The loader of rank 0 has nothing ready."""
    exporter.queue.set(0 if rank == 0 else 2)
    time.sleep(0.02)


@pytest.mark.parametrize(
    ("work", "until", "real"),
    [
        pytest.param(stops, ("StandsStill", 2), True, id="Prometheus sees who stands still"),
        pytest.param(drags, ("Slow", 1), True, id="Prometheus sees who is slow"),
        pytest.param(stops, ("StandsStill", 2), False, id="own code sees who stands still"),
        pytest.param(starves, ("Starved", 0), False, id="own code sees who has nothing to read"),
    ],
)
def test_an_alarm_fires_while_a_job_runs(work, until, real):
    if real and missing():
        pytest.skip(missing())
    rules = [stands_still(1.0, for_s=0.4), slow(2.0, for_s=0.4), starved(for_s=0.4), down(for_s=30)]
    seen = watched(rules, work, until, ranks=3, every_s=0.2, real=real)
    assert Alert(until[0], str(until[1]), "firing") in seen.fired, str(seen)
    assert seen.steps > (3 if work is stops else 0)
    assert str(seen).startswith(f"watched by {'Prometheus' if real else 'the course'}")


def test_patience_ends_without_an_alarm():
    seen = watched([down()], partial(starves), ("Down", 1), ranks=2, every_s=0.1, real=False, patience_s=0.5)
    assert not [each for each in seen.fired if each.rank == "1" and each.state == "firing"] and seen.steps > 0


def test_a_monitor_that_breaks_lets_the_job_end(tmp_path):
    watcher = _Watcher(lambda: json.loads("busy"), Alert("Down", "1", "firing"), Over(tmp_path), 0.01, 60)
    with pytest.raises(json.JSONDecodeError):
        watcher.run()
    assert watcher.over.is_set()


def test_rules_as_prometheus_reads_them():
    assert alarms.Rule("A", "x > 1", lambda *_: (), 0.25).yaml == "  - alert: A\n    expr: x > 1\n    for: 250ms\n"
