"""Paths and evidence -> verdicts. Pure."""
