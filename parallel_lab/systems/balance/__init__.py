"""Work dealt out over ranks that differ: by speed, from a queue, by stealing; sequences and experts of equal load."""
