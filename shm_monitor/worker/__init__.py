"""What a worker holds: the question "should I?", and everything behind the answer."""
