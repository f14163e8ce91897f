"""What a step costs in joules: what sensors say here, measured tables of real GPUs, and models that say so."""
