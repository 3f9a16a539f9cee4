"""Measures reconstruction: its speed beside three other formulations of it, and its answers against the truth."""
