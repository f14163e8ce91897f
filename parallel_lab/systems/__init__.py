"""What stands around training: faults, data and its storage, evaluation, schedules, security, energy; a room each."""
