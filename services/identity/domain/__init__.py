"""Rules of identity. Pure and deterministic: time, keys and randomness come in as arguments; standard library only."""
