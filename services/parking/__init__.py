"""Car parks: counts, availability at arrival, advice, reservations, locks, prices."""
