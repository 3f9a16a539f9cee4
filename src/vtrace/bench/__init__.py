"""Benchmarks that ship: faults injected into labs, and the answers held against what was injected.

Nothing here knows how VTrace works. The overlay is a lab's, the injector uses the ordinary tools, and the diagnoser
runs as a program of its own, `vtrace diagnose --json`.
"""
