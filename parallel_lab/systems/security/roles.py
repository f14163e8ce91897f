"""Access by role: who may do what to which files and keys, with nothing allowed that was not granted.

A role is a name and its grants; a grant is an action on a folder. What nobody has granted is refused. Least privilege
is that a role has what its work needs and no more, and it can be measured: what was granted and never used
(`unused`), from the audit log.

Two mistakes let in whoever chooses a name, and both are in `naive`: a path is compared as text before it is brought to
its plain form (`runs/a/../b` begins with `runs/a`), and without its separator (`runs/ab` does, too).

A policy of a library holds for those who ask it. A process that opens the file itself does not ask, so beneath it there
must be something that cannot be passed by: the kernel's users (`as_user`), an object store's keys, a database's
accounts. There the same rule, least privilege, is set up once more.

A ticket gives a role for a while without an account: the policy's owner signs name, role and end (`issue`), and whoever
has the key can check it (`redeem`). It is a capability: who holds it may use it, so it must be short-lived.

What this does not stop: a role that is misused within its grants (a rank that may write checkpoints writes a bad one);
a stolen ticket until its end; the administrator; a grant that was too wide from the start.
"""

import hmac
import json
import posixpath
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from parallel_lab.systems.security.messages import Refused

NOBODY = 65534


class Grant(NamedTuple):
    """An action, and the folder below which it is allowed."""

    action: str
    below: str


ROLES: Mapping[str, tuple[Grant, ...]] = {
    "rank": (Grant("read", "data"), Grant("read", "runs/a"), Grant("create", "runs/a")),
    "evaluator": (Grant("read", "runs/a"),),
    "janitor": (Grant("delete", "runs/a/old"),),
    "auditor": (Grant("read", "audit"),),
}


def plain_path(path: str) -> str:
    """The path in its plain form, without `..`.

    Raises:
        Refused: it leads out of the folder that all paths are relative to.
    """
    found = posixpath.normpath(path)
    if posixpath.isabs(found) or found.split("/")[0] == "..":
        raise Refused(f"{path} leads out")
    return found


def allows(grants: Iterable[Grant], action: str, path: str) -> bool:
    """Whether one of the grants covers it; symbolic links are the file system's matter, not the name's."""
    try:
        found = PurePosixPath(plain_path(path))
    except Refused:
        return False
    return any(action == grant.action and found.is_relative_to(grant.below) for grant in grants)


def naive(grants: Iterable[Grant], action: str, path: str) -> bool:
    """The same with both mistakes."""
    return any(action == grant.action and path.startswith(grant.below) for grant in grants)


class Guard:
    """Decides by role, and writes each decision down before it says it.

    Attributes:
        roles: The grants of each role.
        note: Where decisions go: called with who, what was asked, and the decision; `audit.Log.append` is one.
    """

    def __init__(self, roles: Mapping[str, Sequence[Grant]], note: Callable[[str, str, bool], object]) -> None:
        self.roles, self.note = roles, note

    def may(self, who: str, role: str, action: str, path: str) -> bool:
        """Whether `who`, in this role, may do that; an unknown role may nothing."""
        allowed = allows(self.roles.get(role, ()), action, path)
        self.note(who, f"{role}: {action} {path}", allowed)
        return allowed


def unused(grants: Iterable[Grant], asked: Iterable[tuple[str, str]]) -> list[Grant]:
    """The grants that none of these (action, path) needed: candidates to be taken away."""
    done = list(asked)
    return [grant for grant in grants if not any(allows([grant], action, path) for action, path in done)]


def issue(key: bytes, who: str, role: str, *, ends_s: float) -> str:
    """A ticket: name, role and end (seconds since 1970), and their code."""
    said = json.dumps({"ends_s": ends_s, "role": role, "who": who}, sort_keys=True)
    return f"{said}|{hmac.digest(key, said.encode(), 'sha256').hex()}"


def redeem(key: bytes, ticket: str, now_s: float | None = None) -> tuple[str, str]:
    """Who has the ticket, and in which role.

    Raises:
        Refused: it was not issued with this key, was changed, or is over.
    """
    said, _, code = ticket.rpartition("|")
    if not hmac.compare_digest(code.encode(), hmac.digest(key, said.encode(), "sha256").hex().encode()):
        raise Refused("the code is not that of this ticket")
    told = json.loads(said)
    if (time.time() if now_s is None else now_s) >= told["ends_s"]:
        raise Refused("the ticket is over")
    return told["who"], told["role"]


def as_user(command: Sequence[object], user: int = NOBODY) -> str:
    """Runs a command as another user of this machine, with that user's group alone; what it prints, also if it fails.

    Only root can do so. A process that has given its rights away does not get them back.
    """
    done = subprocess.run(
        [*map(str, command)],
        user=user,
        group=user,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    return done.stdout
