"""What runs in a rank: `main` is its life, and `backend` the one door through which all of its messages pass.

On its way a call is charged, and brought to host memory where it must be (`stage`), struck by `faults`, noted with the
learner's line (`calls`), recorded, held back by an emulated link (`emulate`), and answered with a handle (`work`).
"""
