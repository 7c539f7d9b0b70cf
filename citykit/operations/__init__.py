"""What a process says of itself to those who run it: alive, ready, metrics, invariants."""
