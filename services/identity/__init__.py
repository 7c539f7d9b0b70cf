"""identity: who people and devices are, what they may do, what they agreed to."""
