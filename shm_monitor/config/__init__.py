"""Settings: one door in, whatever they come from."""
