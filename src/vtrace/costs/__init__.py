"""Measures what VTrace costs the host it works on: its forwarding, its processor and memory (docs/cost.md)."""
