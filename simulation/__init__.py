"""A seeded, deterministic city of clients: open data replayed by signing devices, simulated homes, faults. Never part of a real city."""
