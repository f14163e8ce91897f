"""Who uses which tag of a message: every tag is given out here, so that no two uses ever meet.

Two messages between the same two ranks of a group are told apart by their tags. gloo's tags run from 0 to 2**31 - 1.
All but the last 2**17 of them belong to the users. Tags of the lab are of a class of their own, `LabTag`: so the door
knows whose tag it sees, and refuses a user's tag that is too large.

The headers of an emulated link need no tags: they travel on connections of their own (`emulate`). Neither does the
second connection of `collectives.lanes`, which is a group of its own and carries the tags of the collectives.
"""

LAST = 2**31 - 1
FIRST_OF_LAB = 2**31 - 2**17
COLLECTIVES = 2**16  # how many tags the messages of collectives share


class LabTag(int):
    """A tag that the lab itself uses."""


def collective(number: int) -> LabTag:
    """The tag of message `number` of a collective.

    Numbers that are 2**16 apart have the same tag, and are told apart by their order.
    """
    return LabTag(FIRST_OF_LAB + number % COLLECTIVES)


def parameter_server(shard: int) -> LabTag:
    """The tag of the messages about one shard of a parameter server."""
    return LabTag(FIRST_OF_LAB + COLLECTIVES + shard)


def checked(tag: int) -> int:
    """The tag, if whoever uses it may.

    Raises:
        ValueError: a user's tag lies in the range of the lab.
    """
    if tag >= FIRST_OF_LAB and not isinstance(tag, LabTag):
        raise ValueError(f"tag={tag}: tags from {FIRST_OF_LAB} on are the lab's own; choose a smaller one")
    return tag
