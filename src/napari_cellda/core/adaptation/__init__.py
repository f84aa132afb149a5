"""Adaptation: what every method gets, how it is run, and what becomes of its network."""
