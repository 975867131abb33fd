"""One sample as Structs."""
