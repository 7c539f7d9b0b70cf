"""Electricity meters: signed readings in, proven bills out."""
