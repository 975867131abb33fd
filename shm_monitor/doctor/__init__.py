"""What this machine lets the monitor see and do, and what is wrong."""
