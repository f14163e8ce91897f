"""Roles: what a name that was chosen with care reaches, what the kernel refuses, tickets, and grants nobody needs."""

import os
import tempfile
from pathlib import Path

import pytest

from parallel_lab.systems.security import Grant, Guard, Log, Refused, audit, roles
from parallel_lab.systems.security.roles import ROLES, allows, as_user, issue, naive, redeem, unused

KEY = b"of the policy's owner"


@pytest.fixture
def open_folder():
    """A folder into which every user may look; `tmp_path` is for its owner alone."""
    with tempfile.TemporaryDirectory(prefix="parallel-lab-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    ("path", "fooled"),
    [
        ("runs/a/step-1", False),
        ("runs/a", False),
        ("runs/a/../b/weights", True),
        ("runs/ab/weights", True),
        ("runs/a/../../etc/passwd", True),
        ("runs/b/weights", False),
        ("../runs/a", False),
        ("/runs/a", False),
    ],
)
def test_a_path_is_judged_by_where_it_leads(path, fooled):
    right = path in ("runs/a/step-1", "runs/a")
    assert allows(ROLES["rank"], "read", path) == right
    assert naive(ROLES["rank"], "read", path) == (right or fooled)


def test_what_nobody_granted_is_refused():
    assert not allows(ROLES["rank"], "delete", "runs/a/step-1") and not allows((), "read", "data")
    with pytest.raises(Refused):
        roles.plain_path("a/../..")


def test_each_decision_is_in_the_log_and_shows_what_was_never_needed(tmp_path):
    log = Log(tmp_path / "log")
    guard = Guard(ROLES, log.append)
    assert guard.may("rank 0", "rank", "create", "runs/a/step-1")
    assert not guard.may("rank 0", "rank", "delete", "runs/a/step-0")
    assert not guard.may("somebody", "boss", "read", "data")
    entries = audit.read(tmp_path / "log")
    assert [entry["allowed"] for entry in entries] == [True, False, False] and not audit.verify(entries)
    asked = [("create", "runs/a/step-1")]
    assert unused(ROLES["rank"], asked) == [Grant("read", "data"), Grant("read", "runs/a")]


def test_a_ticket_is_good_until_its_end_and_only_as_it_was_issued():
    ticket = issue(KEY, "rank 3", "rank", ends_s=100.0)
    assert redeem(KEY, ticket, now_s=99.0) == ("rank 3", "rank")
    for key, changed, now_s in (
        (KEY, ticket, 100.0),
        (b"another key", ticket, 0.0),
        (KEY, ticket + "é", 0.0),
        (KEY, "", 0.0),
        (KEY, ticket.replace('"rank"', '"janitor"'), 0.0),
        (KEY, ticket.replace("100.0", "999.0"), 0.0),
    ):
        with pytest.raises(Refused):
            redeem(key, changed, now_s)
    with pytest.raises(Refused):
        redeem(KEY, ticket)  # by the clock it is over since 1970


def test_the_kernel_refuses_a_process_that_does_not_ask(open_folder):
    """As root the whole folder is open, whatever the policy says; as a user with one right it is not."""
    if os.geteuid():
        pytest.skip("only root starts a process as another user")
    secret, shared = open_folder / "secret", open_folder / "shared"
    secret.write_text("of the evaluation")
    secret.chmod(0o600)
    shared.write_text("for all")
    shared.chmod(0o644)
    assert as_user(["cat", secret], user=0) == "of the evaluation"
    assert "Permission denied" in as_user(["cat", secret]) and secret.exists()
    assert as_user(["cat", shared]) == "for all"
    assert "denied" in as_user(["rm", "-f", shared]) and shared.exists()
    assert "not permitted" in as_user(["setpriv", "--reuid=0", "cat", secret])
