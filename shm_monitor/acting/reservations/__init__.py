"""Memory that is reserved before a task takes it, in the process that does the work."""
