"""One router per subject. A route is thin: it reads what is already there, and answers with bytes."""
