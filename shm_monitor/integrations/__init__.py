"""Pressure in the idiom of the frameworks that people use: one framework, one file.

Each imports its framework at its own top, and nobody else does. Rules for all: a reader that needs no sampler
(``required=False``), one log line per episode that says why, never an exception into the user's work, and a maximum for
every wait.
"""
