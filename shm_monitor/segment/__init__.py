"""Every byte of the shared segment, and how it is mapped, named and locked."""
