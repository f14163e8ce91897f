"""The plain scripts end where one process ends, on any number of ranks, and after a break."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
IMAGES, LABELS = (torch.tensor(array) for array in load_digits(return_X_y=True))


def said(script, ranks, *arguments, options=(), forked=False):
    """What the script prints, under torchrun or in ranks that are `forked` as it would start them."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]
    command = [sys.executable, HERE / "forked.py", FOLDER / script, ranks] if forked else [*agent, FOLDER / script]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    words = [*map(str, command), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=quiet, timeout=150)
    assert done.returncode == 0, done.stderr
    return done.stdout


def torchrun(script, ranks, *arguments, forked=False):
    """The losses that the script prints, in order."""
    return [float(loss) for loss in re.findall(r"loss ([\d.]+)", said(script, ranks, *arguments, forked=forked))]


def digit_net(*widths):
    torch.manual_seed(0)
    layers = [each for sizes in pairwise(widths) for each in (nn.ReLU(), nn.Linear(*sizes))]
    return nn.Sequential(*layers[1:]).double()


def one_process(optimizer_class, batches, widths=(64, 128, 10), **rule):
    """The loss of each batch, of the same training in one process."""
    net = digit_net(*widths)
    optimizer = optimizer_class(net.parameters(), **rule)
    for rows in batches:
        loss = nn.functional.cross_entropy(net(IMAGES[rows] / 16), LABELS[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def epochs(count, size, batch):
    """The rows of each batch; every epoch is shuffled with its number as the seed."""
    orders = [torch.randperm(size, generator=torch.Generator().manual_seed(epoch)) for epoch in range(count)]
    return [rows for order in orders for rows in order.split(batch)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_by_hand(ranks):
    expected = list(one_process(torch.optim.SGD, epochs(5, 1438, 50), lr=0.1, momentum=0.9))
    assert torchrun("ddp_by_hand.py", ranks, forked=ranks != 2) == pytest.approx(expected[28::29], abs=2e-9)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_tensor_parallel(ranks):
    """128 columns on 3 ranks are 43, 43 and 42."""
    expected = list(one_process(torch.optim.SGD, epochs(1, 1750, 50), widths=(64, 64, 128, 10), lr=0.1, momentum=0.9))
    assert torchrun("tensor_parallel.py", ranks, forked=ranks != 2) == pytest.approx(expected[4::5], abs=2e-9)


@pytest.mark.parametrize(("ranks", "tp"), [(4, 2), (3, 1)])
def test_hybrid(ranks, tp):
    """Of 50 rows, three replicas have 17, 17 and 16; one shape of the mesh is all data."""
    expected = list(one_process(torch.optim.SGD, epochs(1, 1750, 50), widths=(64, 64, 128, 10), lr=0.1, momentum=0.9))
    assert torchrun("hybrid.py", ranks, tp, forked=tp == 1) == pytest.approx(expected[4::5], abs=2e-9)


def test_ddp_resumes_on_another_number_of_ranks(tmp_path):
    """20 steps on 2 ranks, 20 more, past the end of the epoch, on 3, and the last two on 1."""
    worlds = [(2, 20), (3, 40), (1, 42)]
    found = [torchrun("ddp.py", ranks, steps, tmp_path / "saved.pt", forked=ranks != 2) for ranks, steps in worlds]
    assert [len(losses) for losses in found] == [20, 20, 2]
    expected = list(one_process(torch.optim.AdamW, epochs(2, 1728, 48)[:42], lr=3e-3))
    assert [loss for losses in found for loss in losses] == pytest.approx(expected, abs=2e-9)


def test_model_parallel():
    """Its last batch of an epoch is smaller, and the norm that it clips by is that of both ranks' layers."""
    batches = epochs(5, 1797, 50)
    expected = list(one_process(torch.optim.SGD, batches, widths=(64, 96, 128, 10), lr=0.1, momentum=0.9))
    assert torchrun("model_parallel.py", 2) == pytest.approx(expected[35::36], abs=2e-9)


def chain():
    """The losses of the layers of pipeline.py in one process, a batch at a time."""
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(5)], nn.Linear(64, 10)).double()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for rows in torch.arange(60 * 48).remainder(1728).split(48):
        loss = nn.functional.cross_entropy(net(IMAGES[rows] / 16), LABELS[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_pipeline(ranks):
    assert torchrun("pipeline.py", ranks, forked=ranks != 3) == pytest.approx(list(chain()), abs=2e-9)


def pixel_by_pixel():
    """The losses of context_parallel.py in one process: whole sequences, and PyTorch's own attention."""
    pixels, places = IMAGES.long(), torch.arange(64)
    targets = torch.cat((pixels[:, 1:], torch.full((len(pixels), 1), -100)), dim=1)
    torch.manual_seed(0)
    net = nn.ModuleList((nn.Embedding(17, 32), nn.Embedding(64, 32), nn.Linear(32, 96), nn.Linear(32, 17))).double()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for rows in torch.arange(960).split(48):
        x = net[0](pixels[rows]) + net[1](places)
        mixed = nn.functional.scaled_dot_product_attention(*net[2](x).chunk(3, -1), is_causal=True)
        loss = nn.functional.cross_entropy(net[3](x + mixed).flatten(0, 1), targets[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_context_parallel():
    assert torchrun("context_parallel.py", 4) == pytest.approx(list(pixel_by_pixel()), abs=2e-9)


def mixture(x, router, experts):
    """All rows through all experts, weighted by zero where a row has not chosen them: gradients are zeros, not None."""
    scores, chosen = router(x).topk(2)
    weights = torch.zeros(len(x), 4, dtype=x.dtype).scatter(1, chosen, scores.softmax(-1))
    return sum(weights[:, [number]] * expert(x) for number, expert in enumerate(experts))


def whole_mixture():
    """The losses of expert_parallel.py in one process, with nothing sorted and nothing sent."""
    torch.manual_seed(0)
    first, router, last = whole = nn.ModuleList(nn.Linear(64, out) for out in (64, 4, 10)).double()
    experts = nn.ModuleList(nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)) for _ in range(4)).double()
    optimizer = torch.optim.SGD([*whole.parameters(), *experts.parameters()], lr=0.1, momentum=0.9)
    for rows in torch.arange(960).split(48):
        x = first(IMAGES[rows] / 16).relu()
        loss = nn.functional.cross_entropy(last(x + mixture(x, router, experts)), LABELS[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_expert_parallel():
    assert torchrun("expert_parallel.py", 4) == pytest.approx(list(whole_mixture()), abs=2e-9)


def test_profile_step(tmp_path):
    """It trains as one process does, says for each rank what all of its time was, and leaves the files to look at."""
    printed = said("profile_step.py", 2, tmp_path / "trace")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)).double()
    optimizer, expected = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for rows in torch.arange(8 * 192).split(192):
        loss = nn.functional.cross_entropy(net(IMAGES[rows] / 16), LABELS[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed)] == pytest.approx(expected, abs=2e-9)
    shares = {rank: re.findall(r"(\w+) ([\d.]+)%", line) for rank, line in re.findall(r"rank (\d): (.*)", printed)}
    assert shares.keys() == {"0", "1"}
    for each in shares.values():
        assert [name for name, _ in each] == ["computed", "hidden", "exposed", "idle"]
        assert sum(float(share) for _, share in each) == pytest.approx(100, abs=0.3)
        assert float(dict(each)["computed"]) > 0 and float(dict(each)["hidden"]) + float(dict(each)["exposed"]) > 0
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["trace.0.json.gz", "trace.1.json.gz"]


def compressed(ranks, share=0.1):
    """The losses of compressed_gradients.py in one process, which holds what each rank has left."""
    net = digit_net(64, 128, 10)
    left = [[torch.zeros_like(p) for p in net.parameters()] for _ in range(ranks)]
    for rows in torch.arange(60 * 48).remainder(1728).split(48):
        means, losses = [torch.zeros_like(p) for p in net.parameters()], []
        for mine, kept in zip(rows.chunk(ranks), left, strict=True):
            losses.append(nn.functional.cross_entropy(net(IMAGES[mine] / 16), LABELS[mine]))
            for mean, rest, gradient in zip(
                means, kept, torch.autograd.grad(losses[-1], list(net.parameters())), strict=True
            ):
                rest += gradient
                smallest = rest.abs().flatten().topk(max(1, round(share * rest.numel()))).values[-1]
                sent = torch.where(rest.abs() >= smallest, rest, 0)
                mean += sent / ranks
                rest -= sent
        with torch.no_grad():
            for parameter, mean in zip(net.parameters(), means, strict=True):
                parameter -= 0.1 * mean
        yield sum(losses).item() / ranks


@pytest.mark.parametrize(("ranks", "share"), [(3, 0.1), (2, 1.0)])
def test_compressed_gradients(ranks, share):
    """A share of 1 is plain data parallelism."""
    found = torchrun("compressed_gradients.py", ranks, share, forked=ranks != 2)
    assert found == pytest.approx(list(compressed(ranks, share)), abs=2e-9)


def of_the_median(ranks, steps, batch):
    """The test loss after steps by the median of the ranks' gradients, of which the last one lies, in one process."""
    net = digit_net(64, 32, 10)
    for step in range(steps):
        order = torch.randperm(1438, generator=torch.Generator().manual_seed(step))
        rows = []
        for mine in order[: ranks * batch].split(batch):
            loss = nn.functional.cross_entropy(net(IMAGES[mine] / 16), LABELS[mine])
            rows.append(nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(net.parameters()))))
        rows[-1] = -10 * rows[-1]
        moved = nn.utils.parameters_to_vector(net.parameters()) - 0.5 * torch.stack(rows).sort(0).values[ranks // 2]
        nn.utils.vector_to_parameters(moved.detach(), net.parameters())
    return nn.functional.cross_entropy(net(IMAGES[1438:] / 16), LABELS[1438:]).item()


def test_robust_gradients():
    found = torchrun("robust_gradients.py", 3, "--lie", "--median")
    assert found == pytest.approx([of_the_median(3, 200, 16)], abs=2e-9)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_is_short_and_plain(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60 and "parallel_lab" not in text


def scaled_by_torch(power):
    """The losses of mixed_precision.py in one process: torch's autocast to float16, and its GradScaler."""
    net = digit_net(64, 128, 10).float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**power, growth_interval=10)
    for rows in torch.arange(960).split(48):
        with torch.autocast("cpu", dtype=torch.float16):
            logits = net(IMAGES[rows].float() / 16)
        loss = nn.functional.cross_entropy(logits.float(), LABELS[rows])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        yield loss.item()


@pytest.mark.parametrize(("ranks", "power", "apart"), [(1, 24, 1e-4), (3, 8, 5e-3)])
def test_mixed_precision(ranks, power, apart):
    """From 2^24 the first steps overflow and are skipped. Three ranks overflow later, as each adds up fewer rows."""
    found = torchrun("mixed_precision.py", ranks, power, forked=ranks != 1)
    assert found == pytest.approx(list(scaled_by_torch(power)), abs=apart)


LIFE = re.compile(r"life (\d+) world \d+ step (\d+) loss ([\d.]+)")


def unclipped(batches):
    """The loss of each batch in one process."""
    net = digit_net(64, 128, 10)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for rows in batches:
        loss = nn.functional.cross_entropy(net(IMAGES[rows] / 16), LABELS[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_fault_tolerant(tmp_path):
    """A rank of three is killed at step 13: the second life begins at the save before. Then two ranks go on to 40."""
    expected = list(unclipped(epochs(2, 1728, 48)[:40]))
    printed = LIFE.findall(said("fault_tolerant.py", 3, 20, tmp_path, 13, options=["--max-restarts=2"]))
    steps = [(int(life), int(step)) for life, step, _ in printed]
    assert steps == [(0, step) for step in range(13)] + [(1, step) for step in range(10, 20)]
    printed += LIFE.findall(said("fault_tolerant.py", 2, 40, tmp_path, forked=True))
    assert [int(step) for _, step, _ in printed[len(steps) :]] == list(range(20, 40))
    assert [float(loss) for *_, loss in printed] == pytest.approx([expected[int(s)] for _, s, _ in printed], abs=2e-9)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
