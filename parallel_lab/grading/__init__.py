"""How exercises are graded: on numbers for fresh inputs, and on what was sent, held and waited for to get them.

An exercise is data (`exercises/<name>.py`): cases, what is expected of them, and graders from one vocabulary
(`expectations`, `replay`). A *case* is one run of the learner's function in ranks; the `Lab` runs it once, however
many graders look at it. Where learner code is called back, or must be given a model, a *driver* runs it in the rank.
"""
