"""Runs from outside: start one as a process of its own, follow it, stop it, find it again."""
