"""Who uses which tag of a message: every tag is given out here, so that no two uses ever meet.

Two messages between the same two ranks of a group are told apart by their tags. gloo's tags run from 0 to 2**31 - 1.
All but the last 2**17 of them belong to the users.

The headers of an emulated link need no tags: they travel on connections of their own (`emulate`). Neither does the
second connection of `collectives.lanes`, which is a group of its own and carries the tags of the collectives.
"""

FIRST_OF_LAB = 2**31 - 2**17
COLLECTIVES = 2**16  # how many tags the messages of collectives share


def collective(number: int) -> int:
    """The tag of message `number` of a collective.

    Numbers that are 2**16 apart have the same tag, and are told apart by their order.
    """
    return FIRST_OF_LAB + number % COLLECTIVES


def parameter_server(shard: int) -> int:
    """The tag of the messages about one shard of a parameter server."""
    return FIRST_OF_LAB + COLLECTIVES + shard


def pipeline(number: int) -> int:
    """The tag of message `number` of a pipeline's step, told apart by their order if 2**15 apart."""
    return FIRST_OF_LAB + COLLECTIVES + 2**15 + number % 2**15
