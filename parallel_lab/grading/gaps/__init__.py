"""The gaps of the chapters: small exercises that are solved where they stand, in the order of the text."""

from parallel_lab.grading.gaps import collectives

GAPS = (*collectives.GAPS,)
