"""Runs a diagnosis task: arms the agents, follows the packets, asks on the spot, and gives the answer."""
