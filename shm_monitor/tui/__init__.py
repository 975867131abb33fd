"""What a person looks at in a terminal: ``shm-monitor top``. The extra ``tui`` brings textual."""
