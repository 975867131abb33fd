"""What a worker does about pressure: the size of its work, admission to its pools, one decision for all ranks."""
