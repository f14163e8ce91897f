"""Which process group a call means."""

import torch.distributed as dist


def member(group: dist.ProcessGroup | None) -> dist.ProcessGroup:
    """The group, or the default group for None.

    Raises:
        ValueError: this rank is not in the group, or there is no default group.
    """
    group = dist.group.WORLD if group is None else group
    if group is None:
        raise ValueError("there is no default process group: call this inside launch")
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("this rank is not in the group")
    return group
