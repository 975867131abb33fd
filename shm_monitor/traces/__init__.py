"""Recorded samples: written, read, replayed and reported."""
