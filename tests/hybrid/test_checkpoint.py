"""Checkpoints of laid out models: any layout reads any other, bit by bit, and nothing that goes wrong loses one."""

import dataclasses
import os
import resource
import shutil
import signal
import warnings
from collections import Counter
from fractions import Fraction

import psutil
import pytest
import torch
import torch.distributed as dist

from parallel_lab import launch
from parallel_lab.hybrid import Layout, checkpoint, held, parallelize, train_step
from parallel_lab.model.config import GPTConfig
from parallel_lab.model.data import text_batches
from parallel_lab.model.gpt import GPT
from parallel_lab.runtime import Kill, RankFailed
from parallel_lab.systems.resilience import folder

CONFIG = GPTConfig(vocab=257, seq=8, layers=2, heads=4, kv_heads=2, width=16)  # 257: the last part is padded
EXPERTS = dataclasses.replace(CONFIG, experts=4, active_experts=2, mlp_ratio=1)
KEYS = "", "exp_avg", "exp_avg_sq"
BATCHES = list(text_batches(8, 4, 6))


def laid_out(layout, config=CONFIG, **settings):
    torch.manual_seed(dist.get_rank() if settings.pop("apart", False) else 7)
    return parallelize(GPT(config), layout, lr=0.01, weight_decay=0.1, **settings)


def steps(parallel, first, last):
    return [train_step(parallel, *BATCHES[k]).loss.item() for k in range(first, last)]


def shapes(parallel):
    with torch.device("meta"):
        return [(name, parameter.shape) for name, parameter in GPT(parallel.config).named_parameters()]


def whole(parallel):
    """Weights and moments of the whole model, put together without the code of checkpoints; the same on all ranks."""
    found = {(name, key): torch.zeros(shape) for name, shape in shapes(parallel) for key in KEYS}
    for each in held(parallel):
        if each.answers and each.numbers:
            for key in KEYS:
                each.write(found[each.name, key], each.state[key] if key else each.stepped.detach())
    flat = torch.cat([tensor.view(-1) for tensor in found.values()])
    dist.all_reduce(flat)  # all other ranks have zeros
    parts = flat.split([tensor.numel() for tensor in found.values()])
    return {key: part.view_as(tensor) for (key, tensor), part in zip(found.items(), parts, strict=True)}


def has(parallel, expected, step):
    """Whether this rank holds its part of `expected`, bit by bit: what it steps, the moments, the count, the whole."""
    for each in held(parallel):
        for key in KEYS if each.numbers else ():
            mine = each.state[key] if key else each.stepped.detach()
            if not torch.equal(mine.reshape(-1), each.read(expected[each.name, key])):
                return False
        if parallel.zero < 3:
            part = each.cut.part(expected[each.name, ""], each.tp) if each.cut else expected[each.name, ""]
            if not torch.equal(each.parameter.detach(), part):
                return False
    return all(each.state["step"].item() == step for each in held(parallel) if each.numbers)


FOUR = [
    (Layout(pp=2, tp=2), {"zero": 0, "microbatches": 2}),
    (Layout(dp=2, tp=2), {"zero": 1, "fused": True}),  # how it computes is each run's own
    (Layout(dp=4), {"zero": 3}),
    (Layout(pp=2, dp=2), {"zero": 1, "schedule": "interleaved", "microbatches": 2}),
    (Layout(dp=4), {"zero": 3, "shards": 2}),
    (Layout(tp=4), {"zero": 0, "sequence": True}),  # two key-value heads: each has two copies
]


def test_any_layout_reads_what_any_other_has_saved(tmp_path):
    """In a chain: weights, moments, step and data bit by bit, and the next steps as close as sums are."""

    def fn():
        first = laid_out(FOUR[0][0], **FOUR[0][1])
        steps(first, 0, 2)
        expected = whole(first)
        checkpoint.save(first, tmp_path, step=2, data={"batch": 2})
        losses = steps(first, 2, 4)
        for layout, settings in FOUR[1:]:
            made = laid_out(layout, apart=True, **settings)  # other weights than those that were saved
            assert checkpoint.load(made, tmp_path) == checkpoint.Progress(2, {"batch": 2}, same_layout=False)
            assert has(made, expected, 2), (layout, settings)
            assert all(g["fused"] == settings.get("fused") for g in made.optimizer.param_groups)
            checkpoint.save(made, tmp_path, step=2, data={"batch": 2})
            assert steps(made, 2, 4) == pytest.approx(losses, rel=1e-6), (layout, settings)
        assert checkpoint.load(first, tmp_path).step == 2 and has(first, expected, 2)  # back from two steps further

    launch(fn, ranks=4, timeout=170)  # a busy machine


def test_experts_and_contexts(tmp_path):
    """Experts are saved by their numbers, wherever they are, with the bias that balances them."""
    layouts = [
        (Layout(dp=2, tp=2, ep=2), {"zero": 1}),
        (Layout(pp=2, dp=2, ep=2), {"zero": 0, "microbatches": 2}),
        (Layout(cp=4, ep=4), {"zero": 1}),
        (Layout(pp=2, cp=2), {"zero": 3}),
    ]

    def fn():
        losses, expected, biases = None, None, None
        for number, (layout, settings) in enumerate(layouts):
            made = laid_out(layout, EXPERTS, apart=True, bias_rate=0.01, **settings)
            if number:
                checkpoint.load(made, tmp_path)
                assert has(made, expected, 2), layout
            else:
                steps(made, 0, 2)
                expected = whole(made)
                biases = {name: b.clone() for name, b in made.modules()[0].named_buffers() if name.endswith("bias")}
            checkpoint.save(made, tmp_path, step=2)
            here = {name: b for each in made.modules() for name, b in each.named_buffers() if name.endswith("bias")}
            assert all(torch.equal(biases[name], b) and b.any() for name, b in here.items()), layout
            losses = losses or steps(made, 2, 3)
            assert number == 0 or steps(made, 2, 3) == pytest.approx(losses, rel=1e-5), layout

    launch(fn, ranks=4, timeout=170)  # a busy machine


def test_from_one_process_to_eight_ranks_and_back(tmp_path):
    def start():
        made = laid_out(Layout(), zero=0)
        steps(made, 0, 2)
        checkpoint.save(made, tmp_path, step=2)
        return whole(made), steps(made, 2, 3)

    def eight(expected):
        made = laid_out(Layout(pp=2, dp=2, tp=2), microbatches=2, apart=True)
        assert not checkpoint.load(made, tmp_path).same_layout and has(made, expected, 2)
        losses = steps(made, 2, 3)
        checkpoint.save(made, tmp_path, step=3)
        return losses, whole(made)

    def end(expected):
        made = laid_out(Layout(), zero=0, apart=True)
        assert checkpoint.load(made, tmp_path).step == 3 and has(made, expected, 3)

    expected, losses = launch(start, ranks=1)[0]
    found, expected = launch(eight, expected, ranks=8)[0]
    assert found == pytest.approx(losses, rel=1e-6)
    launch(end, expected, ranks=1)


def test_the_same_layout_goes_on_bit_by_bit(tmp_path):
    """Dropout, moments and weights: in new processes the losses are those of the run that never stopped."""
    config = dataclasses.replace(CONFIG, dropout=0.2)

    def run(resume=False):
        made = laid_out(Layout(dp=2), config, apart=resume)
        if resume:
            assert checkpoint.load(made, tmp_path) == checkpoint.Progress(2, [2], same_layout=True)
        else:
            steps(made, 0, 2)
            checkpoint.save(made, tmp_path, step=2, data=[2])
        return steps(made, 2, 4), whole(made), torch.get_rng_state(), [] if resume else elsewhere()

    def elsewhere():
        """In another layout: the same losses at every load, and other masks on ranks with other layers."""
        made, found = laid_out(Layout(pp=2), config), []
        for _ in range(2):
            assert not checkpoint.load(made, tmp_path).same_layout
            found.append((bytes(torch.get_rng_state().numpy()), steps(made, 2, 4)))
        assert found[0] == found[1]
        return found[0][0]

    through, resumed = launch(run, ranks=2), launch(run, resume=True, ranks=2)
    for (losses, weights, random, _), (again, found, drawn, _) in zip(through, resumed, strict=True):
        assert losses == again, "bit by bit"
        assert all(torch.equal(weights[key], found[key]) for key in weights) and torch.equal(random, drawn)
    assert len({states for *_, states in through}) == 2


# What goes wrong.


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A folder with one checkpoint, of step 1 on two ranks; and what it holds."""

    def fn(directory):
        made = laid_out(Layout(dp=2))
        steps(made, 0, 1)
        checkpoint.save(made, directory, step=1, data="one")
        return whole(made)

    directory = tmp_path_factory.mktemp("older")
    return directory, launch(fn, directory, ranks=2)[0]


def test_a_rank_reads_what_it_needs_and_no_more(older, tmp_path):
    """Of the files those with its pieces; of a file the pages with its elements."""
    directory, _ = older

    def fn():
        made, opened = laid_out(Layout(pp=2), zero=0), []
        read = folder.read
        folder.read = lambda file, *rest: opened.append(file.name) or read(file, *rest)
        checkpoint.load(made, directory)
        before = opened.copy()
        checkpoint.save(made, tmp_path, step=1)
        checkpoint.load(made, tmp_path)
        return before, opened[len(before) :]

    other, own = zip(*launch(fn, ranks=2).results, strict=True)
    shards = [folder.shard(rank) for rank in range(2)]
    assert [set(names) for names in other] == [{folder.INDEX, *shards}] * 2  # the flat vector is cut in the middle
    assert set(own[0]) == {folder.INDEX, shards[0]}
    assert set(own[1]) == {folder.INDEX, *shards}  # its head is tied to the embedding

    stamp = folder.write(tmp_path / "large", {"a": torch.ones(2**23), "b": torch.ones(2**23)})  # 64 MiB
    before = psutil.Process().memory_info().rss
    found = folder.read(tmp_path / "large", stamp)
    assert found["b"][: 2**18].sum() == 2**18
    assert psutil.Process().memory_info().rss - before < 2**24


def refused(action, *args, **options):
    """What this rank is told; one that refuses joins the others, who wait for it."""
    try:
        action(*args, **options)
    except (TypeError, ValueError, OSError) as error:
        if "cannot go on" not in str(error):
            dist.barrier()
        return f"{type(error).__name__}: {error}"
    return ""


def test_what_cannot_be_loaded_is_refused_by_the_rank_that_needs_it(older, tmp_path):
    directory, expected = older
    kinds = ("missing", "cut", "damaged", "index", "empty")
    for kind in kinds[:-1]:
        shutil.copytree(directory / "000001-step-1", tmp_path / kind)
    (tmp_path / "empty").mkdir()
    shard = folder.shard(1)
    (tmp_path / "missing" / shard).unlink()
    os.truncate(tmp_path / "cut" / shard, 100)
    for file in (tmp_path / "damaged" / shard, tmp_path / "index" / folder.INDEX):
        file.write_bytes(bytes(file.stat().st_size))

    def fn():
        made = laid_out(Layout(dp=2))
        steps(made, 0, 2)
        before, told = whole(made), {kind: refused(checkpoint.load, made, tmp_path / kind) for kind in kinds}
        for kind, config in (("heads", {"heads": 2}), ("layers", {"layers": 3}), ("rotary", {"positions": "rotary"})):
            other = laid_out(Layout(dp=2), dataclasses.replace(CONFIG, **config))
            told[kind] = refused(checkpoint.load, other, directory)
        told["optimizer"] = refused(checkpoint.load, laid_out(Layout(dp=2), optimizer=torch.optim.Adam), directory)
        assert has(made, before, 2), "nothing was changed"
        checkpoint.load(made, directory)
        assert has(made, expected, 1)
        return told

    first, second = launch(fn, ranks=2).results
    on_rank_1 = {
        "missing": f"ValueError: rank 1 cannot load: {shard} is missing from the checkpoint {tmp_path / 'missing'}",
        "cut": f"ValueError: rank 1 cannot load: {tmp_path / 'cut' / shard} has 100 bytes, and had ",
        "damaged": f"ValueError: rank 1 cannot load: {tmp_path / 'damaged' / shard} has the checksum ",
    }
    for kind, text in on_rank_1.items():
        assert second[kind].startswith(text)
        assert first[kind].startswith("ValueError: rank 0 cannot go on: another rank refused")
    assert first["empty"].startswith("FileNotFoundError: rank 0 cannot load: there is no complete checkpoint in")
    for told in (first, second):
        assert f"{folder.INDEX} cannot be read" in told["index"]
        assert "is of another model: heads is 4 in its model and 2 in this one" in told["heads"]
        assert "layers is 2 in its model and 3 in this one" in told["layers"]
        assert "positions is learned in its model and rotary in this one" in told["rotary"]
        assert "is of AdamW, and here is Adam: load it with the same class of optimizer" in told["optimizer"]


def flip(file, position=None):
    """Changes one bit of a file in its place, in the middle where it is a file of tensors."""
    content = bytearray(file.read_bytes())
    content[position if position is not None else len(content) // 2] ^= 1
    file.write_bytes(content)


def test_one_changed_bit_is_found_and_the_checkpoint_before_serves(older, tmp_path):
    """Named by the rank that looked; passed over with a warning, and left where it is; refused where it is the only."""
    shutil.copytree(older[0], tmp_path, dirs_exist_ok=True)
    shutil.copytree(older[0] / "000001-step-1", tmp_path / "000002-step-1")
    flip(tmp_path / "000002-step-1" / folder.shard(1))

    def fn():
        made = laid_out(Layout(dp=2), apart=True)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            checkpoint.load(made, tmp_path)
        assert has(made, older[1], 1)
        return [str(each.message) for each in told], refused(checkpoint.load, made, tmp_path / "000002-step-1")

    first, second = launch(fn, ranks=2).results
    text = f"{tmp_path / '000002-step-1' / folder.shard(1)} has the checksum"
    assert len(first[0]) == 1 and first[0][0].startswith(f"passing over 000002-step-1: {text}") and not second[0]
    assert second[1].startswith(f"ValueError: rank 1 cannot load: {text}") and "another rank refused" in first[1]
    assert len(folder.complete(tmp_path)) == 2, "nothing was removed"


def test_a_checkpoint_without_checksums_still_loads(older, tmp_path):
    """As they were written before: lengths by rank."""
    where = tmp_path / "000001-step-1"
    shutil.copytree(older[0] / "000001-step-1", where)
    index = dict(folder.read_index(where))
    index["bytes"] = [size for size, _ in index.pop("files").values()]
    (where / folder.INDEX).unlink()
    folder.write(where / folder.INDEX, index)

    def fn():
        made = laid_out(Layout(pp=2), apart=True)
        checkpoint.load(made, tmp_path)
        assert has(made, older[1], 1)

    launch(fn, ranks=2)
    assert "saved by 2 ranks" in checkpoint.describe(tmp_path)


def test_what_cannot_be_saved_is_refused_and_nothing_is_lost(older, tmp_path):
    directory, _ = older
    (tmp_path / "file").write_text("")

    def fn():
        made = laid_out(Layout(dp=2))
        save, write = checkpoint.save, folder.write
        told = {
            "two": refused(save, made, directory, step=2),  # the test's own process saves into it
            "file": refused(save, made, tmp_path / "file", step=2),
            "data": refused(save, made, tmp_path, step=2, data={"at": Fraction(1, 2)}),
            "step": refused(save, made, tmp_path, step=-1),
            "keep": refused(save, made, tmp_path, step=1, keep=0.5),
        }

        def full(file, content):
            if file.name == folder.shard(1):
                file.write_text("a part")
                raise OSError(28, "No space left on device")
            return write(file, content)

        folder.write = full
        told["full"] = refused(save, made, tmp_path, step=2)
        folder.write = write
        for step in range(2, 6):
            save(made, tmp_path, step=step, keep=1)
        return told

    with folder.writing(directory):
        first, second = launch(fn, ranks=2).results
    assert f"rank 0 cannot save step 2 into {directory}: another run is saving into" in first["two"]
    assert first["file"].startswith(f"OSError: rank 0 cannot save step 2 into {tmp_path / 'file'}: [Errno 17]")
    assert "data is made of numbers, words, tensors, and lists and dicts of these, got {'at': Fraction" in first["data"]
    assert second["full"] == f"OSError: rank 1 cannot save step 2 into {tmp_path}: [Errno 28] No space left on device"
    assert "rank 0 cannot go on: another rank refused" in first["full"]
    assert "step=-1: expected at least 0" in first["step"] and "keep=0.5 (float)" in second["keep"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [".saving", "000003-step-4", "000004-step-5", "file"]
    assert checkpoint.latest(tmp_path).name == "000004-step-5" and checkpoint.latest(directory)


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_called_full(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.write(tmp_path / "large", {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_checkpoint_holds_in_words(older):
    text = checkpoint.describe(older[0])
    assert text.startswith("00000")
    assert "10,288 parameters after 1 steps, saved by 2 ranks, pp=1 dp=2 cp=1 tp=1 ep=1" in text
    assert "data: 'one'" in text and "AdamW, lr 0.01" in text
    assert "5,144 elements of" in text and "each with step, exp_avg, exp_avg_sq" in text


def test_a_rank_that_dies_while_a_checkpoint_is_written(older):
    """At the worst moments, and at its messages: the older checkpoint serves, and the next one is whole."""
    directory, expected = older

    def dies(moment):
        made = laid_out(Layout(dp=2), zero=0)
        write, rename = folder.write, os.rename

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        def half(file, content):
            stamp = write(file, content)
            if file.name == folder.shard(1):
                os.truncate(file, stamp.bytes // 2)
                die()
            return stamp

        folder.write = half if moment == "half a shard" else write
        os.rename = die if moment == "before it is seen" else rename
        checkpoint.save(made, directory, step=2)

    def after():
        made = laid_out(Layout(pp=2), apart=True)
        assert checkpoint.load(made, directory).data == "one" and has(made, expected, 1)
        steps(made, 1, 2)
        checkpoint.save(made, directory, step=2)

    def names():
        return sorted(each.name for each in directory.iterdir() if each.name != ".saving")

    run = launch(lambda: laid_out(Layout(dp=2), zero=0) and None, ranks=2)
    before = Counter(span.kind for span in run.trace.spans if span.rank == 1)
    message = [Kill(1, "all_gather", before["all_gather"] + 3)]  # when its shard is written, and nobody knows yet
    for moment in ("half a shard", "before it is seen", message):
        with pytest.raises(RankFailed, match="killed"):
            launch(dies, str(moment), ranks=2, faults=moment if isinstance(moment, list) else ())
        assert checkpoint.latest(directory).name == "000001-step-1"
        assert names()[-1] == "000001-step-1" and len(names()) <= 2, "the living rank 0 tidies up, a dead one cannot"
    launch(after, ranks=2)
    assert names() == ["000001-step-1", "000002-step-2"]
