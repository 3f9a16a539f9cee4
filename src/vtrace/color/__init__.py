"""The color of a packet, and the registry of every bit, mark and cookie VTrace uses."""
