"""Changes of the topology while a task runs: a VM migrates, a gateway fails over, a backend or a route changes."""
