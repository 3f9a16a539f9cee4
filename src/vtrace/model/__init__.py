"""Frozen types every stage shares. Imports nothing of ours."""
