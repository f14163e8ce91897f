"""What ranks look at and agree on before they go on, shared by all techniques: arguments, models, gradients.

An error is raised on the rank that caused it, before anything is sent or changed. The others wait for that rank, so
that the launch names it and ends them.
"""
