"""The training command: its options, what it shows, and that a run which was broken off ends where it would have."""

import io
import json
import os
import re
import shlex

import pytest
import torch

from parallel_lab import launch
from parallel_lab.hybrid import place
from parallel_lab.hybrid.failures import explain
from parallel_lab.hybrid.options import EXAMPLES, PRESETS, Wrong, config_of, layout_of, parse, parser
from parallel_lab.hybrid.progress import Bar, Pace, peak_flops, table
from parallel_lab.hybrid.train import main
from parallel_lab.model import build, loss, train
from parallel_lab.model.data import text_batches
from parallel_lab.model.formulas import flops_per_token, parameter_count
from parallel_lab.runtime import RankFailed
from parallel_lab.runtime.torchrun import address_towards
from parallel_lab.systems.resilience import folder
from parallel_lab.systems.scheduling.slurm import free_ports
from parallel_lab.trace.record import recorder

SMALL = "--layers 2 --heads 2 --width 16 --seq 8 --batch 8 --dropout 0.1 --log-every 2".split()  # noqa: SIM905


def command(folder, line):
    """Exit code of the command on this rank, and what it sent by axis."""
    return main([*SMALL, "--out", str(folder), *line.split()]), dict(recorder().sent_by_axis)


def run(folder, line, ranks, **options):
    found = launch(command, folder, line, ranks=ranks, **options)
    assert {code for code, _ in found.results} == {0}
    assert not any(found.output[1:]), "rank 0 speaks for all"
    return found


def weights(found):
    return re.findall(r"^weights (\w{16})$", found.output[0], re.M)[-1]


@pytest.mark.parametrize(
    "ranks, axes",
    [
        (1, ""),
        (4, "--pp 2 --dp 2"),
        (4, "--tp 2 --cp 2 --dtype bfloat16"),
        (4, "--pp 2 --zero 3 --schedule gpipe"),
        (4, "--ep 2 --cp 2 --experts 4 --recompute"),
    ],
)
def test_a_run_that_was_broken_off_ends_bit_by_bit_where_it_would_have(tmp_path, ranks, axes):
    unbroken = run(tmp_path / "a", f"{axes} --steps 5 --save-every 5", ranks)
    first = run(tmp_path / "b", f"{axes} --steps 3 --save-every 3", ranks)
    second = run(tmp_path / "b", f"{axes} --steps 5", ranks)
    assert "going on from step 3" in second.output[0] and "step 5 of 5" in second.output[0]
    assert weights(second) == weights(unbroken) != weights(first)


def test_another_layout_goes_on_from_the_same_checkpoint(tmp_path):
    quiet = "--dropout 0 --log-every 1"
    whole = run(tmp_path / "a", f"{quiet} --steps 4", 1).output[0]
    run(tmp_path / "b", f"{quiet} --steps 2 --tp 2", 4)
    other = run(tmp_path / "b", f"{quiet} --steps 4 --pp 2", 2).output[0]
    assert "saved by another layout" in other
    found, expected = (re.findall(r"step [34] of 4  (loss \S+  norm \S+)", text) for text in (other, whole))
    assert found == expected and len(found) == 2
    done = run(tmp_path / "b", f"{quiet} --steps 4", 1).output[0]
    assert "step 4 is there already" in done


def test_losses_are_those_of_one_process(tmp_path):
    options = parse([*SMALL, "--dropout", "0", "--steps", "4"])
    batches = text_batches(8, 8, 4)
    right = train(build(config_of(options)), batches, torch.optim.AdamW, lr=1e-3)  # no norm is above 5
    shown = run(tmp_path, "--dropout 0 --clip 5 --log-every 1 --steps 4 --pp 2 --tp 2", 8).output[0]
    assert re.findall(r"loss (\S+)", shown) == [f"{value:.4f}" for value in right.losses]
    inputs, targets = next(iter(text_batches(8, 8, 1, start=2)))
    third = list(batches)[2]
    assert torch.equal(inputs, third[0]) and torch.equal(targets, third[1])
    assert loss(build(config_of(options))(inputs), targets).isfinite()


def test_a_folder_that_cannot_be_used_is_a_sentence_and_stays_as_it_is(tmp_path):
    run(tmp_path / "a", "--steps 1", 1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RankFailed, match=r"is of another model: width is 16 in its model and 32 in this one"):
        run(tmp_path / "a", "--steps 2 --width 32 --dp 2", 2)
    (tmp_path / "file").touch()
    with pytest.raises(RankFailed, match=r"rank 0 cannot write into --out .*/file: File exists. Name another folder"):
        run(tmp_path / "file", "--steps 2 --dp 2", 2)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "file"])


def test_a_folder_has_one_run_at_a_time_and_is_no_checkpoint(tmp_path):
    with folder.training(tmp_path, 0), pytest.raises(RankFailed, match=r"another run trains into .* at this moment"):
        run(tmp_path, "--steps 2 --dp 2 --rendezvous-timeout 0.1", 2)
    assert [each.name for each in tmp_path.iterdir()] == [folder.TRAINING]
    run(tmp_path, "--steps 1", 1)
    with pytest.raises(RankFailed, match=r"--out .*/000001-step-1 is itself a checkpoint"):
        run(tmp_path / "000001-step-1", "--steps 2", 1)


def test_a_checkpoint_that_lost_its_index_is_in_nobodys_way(tmp_path):
    run(tmp_path, "--steps 2 --save-every 1", 1)
    (tmp_path / "000002-step-2" / folder.INDEX).unlink()
    again = run(tmp_path, "--steps 2", 1)
    assert "going on from step 1" in again.output[0] and folder.latest(tmp_path) == tmp_path / "000003-step-2"


def test_going_on_with_other_options_is_told(tmp_path):
    run(tmp_path, "--steps 1", 1)
    again = run(tmp_path, "--steps 2 --lr 0.01 --clip 2", 1)
    assert "going on from step 1" in again.output[0] and "other sequences" not in again.output[0]
    assert "; --lr is 0.01, and was 0.001; --clip is 2.0, and was 1.0\n" in again.output[0]
    third = run(tmp_path, "--steps 3 --lr 0.01 --clip 2 --seed 1", 1)
    assert "; --seed is 1, and was 0: other sequences follow\n" in third.output[0]


def test_bytes_by_axis_are_those_of_the_trace(tmp_path):
    found = run(tmp_path, "--steps 4 --pp 2 --dp 2 --tp 2", 8)
    for rank, (_, sent) in enumerate(found.results):
        traced = {axis: found.trace.bytes_sent(rank, axis) for axis in sent}
        assert traced == sent and sum(sent.values()) == found.trace.bytes_sent(rank)
    rows = re.findall(r"^axis (\w+) ", found.output[0], re.M)
    assert {"tp", "dp", "pp"} <= set(rows)


def test_mfu_where_the_peak_is_named(tmp_path):
    shown = run(tmp_path, "--steps 4 --peak-tflops 0.00001", 1).output[0]
    speed, share = re.search(r"4 steps in .*, ([\d,]+) tokens/s  MFU ([\d.]+) %", shown).groups()
    config = config_of(parse(SMALL))
    assert float(share) == pytest.approx(100 * flops_per_token(config) * float(speed.replace(",", "")) / 1e7, rel=0.02)


def test_checkpoints_of_a_run_in_bfloat16_are_float32(tmp_path):
    run(tmp_path, "--dtype bfloat16 --steps 1", 1)
    (path,) = tmp_path.glob("*-step-1/rank-00000.pt")
    values = torch.load(path)["values"]
    assert {each[key].dtype for each in values.values() for key in ("", "exp_avg")} == {torch.float32}
    config = config_of(parse(SMALL))
    assert sum(each[""].numel() for each in values.values()) == parameter_count(config)


@pytest.mark.parametrize(
    "line, message",
    [
        ("--pp 3", r"pp=3 x cp=1 x tp=1 = 3 does not divide the 8 ranks that there are: start a multiple of 3"),
        ("--dp 3 --tp 2", r"makes 6 ranks, and there are 8"),
        ("--dp 8 --ep 4", r"ep=4, and this model has no experts"),
        ("--ep 4 --experts 6", r"6 experts do not divide by ep=4"),
        ("--ep 3 --experts 3", r"ep=3 does not divide"),
        ("--cp 2 --seq 6", r"a sequence of 6 tokens does not divide into 2 cp = 4 parts"),
        ("--tp 4 --heads 2", r"2 heads do not divide by tp=4"),
        ("--batch 4", r"a batch of 4 sequences, and dp=8 times 1 microbatches need one each: at least 8"),
        ("--pp 8 --layers 2", r"2 blocks, an embedding and a head make at most 4 stages"),
        ("--heads 3", r"a width of 16 does not divide into 3 heads"),
        ("--vocab 100", r"--vocab 100: the text is made of bytes, so that there are 256 tokens at least"),
        ("--preset huge", r"argument --preset: invalid choice: 'huge'"),
        ("--zero 2", r"argument --zero: invalid choice: 2"),
        ("--steps 0", r"argument --steps: '0' is no whole number from 1"),
        ("--lr -1", r"argument --lr: '-1' is no number above 0"),
        ("--stepz 5", r"unrecognized arguments: --stepz 5"),
    ],
)
def test_what_does_not_fit_is_a_sentence(line, message):
    with pytest.raises(Wrong, match=message):
        options = parse([*SMALL, *line.split()])
        layout_of(options, config_of(options), 8)


def test_every_example_of_the_help_is_a_command_that_fits():
    text = EXAMPLES.replace("\\\n", " ")
    found = [line.split("parallel_lab.hybrid.train", 1) for line in text.splitlines() if "hybrid.train" in line]
    assert len(found) == 5
    for before, after in found:
        words = dict(re.findall(r"--(nproc-per-node|nnodes|nodes|ntasks-per-node) (\d+)", before))
        world = 1
        for count in words.values():
            world *= int(count)
        options = parse(shlex.split(after))
        assert layout_of(options, config_of(options), world).world == world


def test_help_says_everything(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown and "exit codes:" in shown
    assert all(name in shown for action in parser()._actions for name in action.option_strings)
    assert [parameter_count(PRESETS[f"gpt2-{size}"]) // 10**6 for size in ("124m", "355m")] == [124, 354]


def test_the_environment_of_the_caller_is_as_before(monkeypatch):
    """What one run left there would win over what `srun` tells a later one."""
    before, seen = dict(os.environ), []

    def join(timeout_s):
        seen.append((os.environ["RANK"], os.environ["WORLD_SIZE"], timeout_s))
        raise place.Absent("nobody came")

    monkeypatch.setattr(place, "join", join)
    assert main(["--rendezvous-timeout", "2"]) == 1 and main(["--help"]) == 0
    assert seen == [("0", "1", 2.0)] and dict(os.environ) == before


SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
SLURM |= {"SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_STEP_NODELIST": "gpu[07-09],cpu1", "SLURM_JOB_ID": "1234567"}


def test_a_rank_finds_its_place():
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert place.variables({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == alone, "a batch script without srun"
    found = place.variables(SLURM)
    port = found.pop("MASTER_PORT")
    assert 20_000 <= int(port) < 30_000 and port != place.variables(SLURM | {"SLURM_STEP_ID": "1"})["MASTER_PORT"]
    expected = {"RANK": "5", "WORLD_SIZE": "7", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "gpu07"}
    assert found == expected
    assert place.variables(SLURM | {"MASTER_ADDR": "10.0.0.1"})["MASTER_ADDR"] == "10.0.0.1"
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert place.variables(SLURM | torchrun) == {"LOCAL_RANK": "1"}, "torchrun under Slurm: what is set stays"
    assert place.tasks("2(x3),1") == [2, 2, 2, 1]
    firsts = {"a": "a", "a-1,b": "a-1", "n[1,3]-x,c": "n1-x", "n[004-010]": "n004"}
    assert {text: place.first_host(text) for text in firsts} == firsts


def test_ranks_that_do_not_meet_say_who_is_missing(monkeypatch, free_port):
    for name, value in {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(place.Absent, match=rf"rank 2: 127.0.0.1:{free_port} does not answer within 0.5 s"):
        place.meet(0.5)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(place.Absent, match=r"rank 0 waited 0.5 s at 127.0.0.1:\d+ for ranks 1, 2 of 3, in vain"):
        place.meet(0.5)
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    with pytest.raises(place.Absent, match=r"rank 0: the host 'no-such-host.invalid' is not known here"):
        place.meet(0.5)


def test_a_rank_says_that_another_is_lost_and_others_are_silent(monkeypatch, capsys, tmp_path):
    for local, told in (("0", 1), ("1", 0)):
        for name, value in {"RANK": f"1{local}", "LOCAL_RANK": local}.items():
            monkeypatch.setenv(name, value)
        lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5")
        assert explain(None, lost, parse(["--out", str(tmp_path)])) == 1
        shown = capsys.readouterr().err
        assert shown.count("rank 10 lost another rank (") == told and "Traceback" not in shown


def test_ranks_with_the_same_to_say_say_it_once(monkeypatch, capsys, tmp_path):
    store = torch.distributed.HashStore()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for rank in "210":
        monkeypatch.setenv("RANK", rank)
        assert explain(store, Wrong("the axes do not fit"), None) == 2
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "the axes do not fit"
    assert explain(store, KeyError("a bug"), None) == 1
    shown = capsys.readouterr().err
    assert shown.count("the axes do not fit") == 1 and shown.startswith("rank 2: the axes")
    assert "KeyError: 'a bug'" in shown


def test_the_address_on_the_way_to_another_host():
    assert address_towards("127.0.0.1") == "127.0.0.1" and address_towards("no-such-host.invalid") == ""


@pytest.fixture
def free_port():
    return free_ports(1)[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_writes_over_itself_in_a_terminal_alone():
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        bar = Bar(4, out)
        bar.show(1, "loss 5", "")
        bar.show(2, "loss 4", "10 tokens/s")
        bar.say("done")
    assert file.getvalue() == "step 1 of 4  loss 5\nstep 2 of 4  loss 4  10 tokens/s\ndone\n"
    lines = terminal.getvalue().split("\r\x1b[K")
    assert len(lines) == 3 and lines[2].startswith("[" + "#" * 15 + "." * 15 + "] 2 of 4  loss 4")
    assert lines[2].endswith("\ndone\n")


def test_pace_leaves_out_the_first_step(monkeypatch):
    now_s = iter([0.0, 10.0, 12.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now_s))
    pace = Pace(tokens=100, flops_per_token=6.0, peak=1200.0)
    for _ in range(3):
        pace.step()
    assert pace.lately() == "100 tokens/s  MFU 50.0 %"
    assert pace.overall() == "50 tokens/s  MFU 25.0 %"


def test_peaks_are_those_of_the_card(monkeypatch):
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert peak_flops(cpu, torch.float32) is None and peak_flops(cpu, torch.float32, 2) == 2e12
    names = {"NVIDIA H100 80GB HBM3": 989, "NVIDIA A100-SXM4-80GB": 312, "NVIDIA A10": 125, "NVIDIA H100 PCIe": 756}
    for name, tflops in names.items():
        monkeypatch.setattr("torch.cuda.get_device_name", lambda _, name=name: name)
        assert peak_flops(cuda, torch.bfloat16) == tflops * 1e12
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Some Other Card")
    assert peak_flops(cuda, torch.bfloat16) is None


def test_a_table_has_its_columns_under_each_other():
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc   d"
