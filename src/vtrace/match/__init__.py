"""(task, topology) -> flow entries. Pure."""
