"""Adaptation systems, one file each, discovered and not registered."""
