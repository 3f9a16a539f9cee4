"""A real overlay network on one machine."""
