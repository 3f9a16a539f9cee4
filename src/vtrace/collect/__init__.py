"""From the agents to the analyzer."""
