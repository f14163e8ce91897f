"""What stands around training: faults, data and its storage, evaluation; a room each."""
