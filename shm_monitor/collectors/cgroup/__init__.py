"""What the control groups above us allow and use."""
