"""Jobs dealt out over a cluster: policies on a simulated one and on real traces; Slurm; metrics and alarms."""
