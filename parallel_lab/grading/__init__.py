"""How exercises are graded: on numbers for fresh inputs, and on what was sent, held and waited for to get them.

An exercise is data (`exercises/<name>.py`): cases, each a run of the learner's function in ranks, what is expected of
them, and graders from one vocabulary. Where learner code must be given a model, a *driver* runs it in the rank.
"""
