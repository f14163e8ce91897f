"""What runs in a rank: `main` is its life, and `backend` the one door through which all of its messages pass.

On its way a call is noted (`calls`), charged (`charge`), struck by `faults`, held back by an emulated link (`emulate`),
brought to host memory where it must be (`stage`), and answered with a handle (`work`). `recording` writes it down.
"""
