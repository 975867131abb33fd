"""Exit statuses: they are API."""

FINE = 0
PRUNE = 1
USAGE = 2
NO_SAMPLER = 3
