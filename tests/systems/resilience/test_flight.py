"""Jobs that really hang, diagnosed from the flight records that their ranks wrote, beside PyTorch's own analyzer."""

import logging
import os
import pickle
import re

import pytest
from torch.distributed.flight_recorder import fr_trace

from parallel_lab.runtime import LaunchError, launch
from parallel_lab.systems.resilience import HANGS, diagnose, flight, synthetic
from parallel_lab.systems.resilience.hung_jobs import CULPRIT, recording

EXPECTED = {
    "missing": ("behind", CULPRIT, 3, r"missing ranks: \{2\}"),
    "collective": ("mismatched collective", CULPRIT, 4, "Culprit rank 2; Error type: COLLECTIVE_TYPE_MISMATCH"),
    "size": ("mismatched size", CULPRIT, 4, "Culprit rank 2; Error type: SIZE_OR_SYNTAX_MISMATCH"),
    "order": ("order", 0, 1, r"missing ranks: \{2\}"),
    "loader": ("behind", CULPRIT, 4, r"missing ranks: \{2\}"),
}


@pytest.mark.parametrize("name", HANGS)
def test_a_hung_job(name, caplog, monkeypatch):
    kind, rank, number, theirs = EXPECTED[name]
    monkeypatch.setattr(logging.getLogger("Flight Recorder"), "propagate", True)
    with recording() as prefix:
        with pytest.raises(LaunchError):
            launch(HANGS[name], ranks=4, device="cpu", still_s=1.0, echo=False)
        found = diagnose(flight.read(os.path.dirname(prefix)))
        with caplog.at_level(logging.INFO):
            fr_trace.main([os.path.dirname(prefix), "--prefix", os.path.basename(prefix)])
    (finding,) = found.findings
    assert (finding.kind, finding.ranks[0], finding.number) == (kind, rank, number)
    assert "next: " in str(found) and re.search(r"hung_jobs.py:\d+", finding.text)
    assert re.search(theirs, caplog.text), "PyTorch's own analyzer finds the same"


def test_512_ranks_of_which_all_but_one_wait():
    found = diagnose(synthetic(culprit=137))
    (finding,) = found.findings
    assert (finding.kind, finding.ranks) == ("behind", (137,)) and "511 ranks wait" in str(found)


def test_a_rank_without_a_dump_and_a_collective_that_does_not_end():
    dumps = synthetic(16, tensor=4, culprit=5, steps=2)
    left = diagnose({rank: dump for rank, dump in dumps.items() if rank != 5})
    assert left.findings[0].kind == "no dump" and left.findings[0].ranks == (5,)
    stuck = diagnose({rank: dump for rank, dump in dumps.items() if rank not in (5,) and rank // 4 != 1})
    assert stuck.findings
    everyone = {rank: flight.Dump(rank, {"0": (0, 1)}, {"0": "default_pg"}, (ENTRY,)) for rank in (0, 1)}
    assert diagnose(everyone).findings[0].kind == "network"
    over = {0: flight.Dump(0, {"0": (0,)}, {"0": ""}, (ENTRY._replace(over=True),))}
    assert "nothing is wrong" in str(diagnose(over))


ENTRY = flight.Entry("0", 1, "all_reduce", ((4,),), ("Float",), False, "train.py:7")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "rank_0").write_bytes(pickle.dumps(os.system))
    with pytest.raises(pickle.UnpicklingError, match="something else"):
        flight.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no flight record"):
        flight.read(tmp_path / "other")
