"""Odd packets: frames made by hand, sent and counted at the VMs themselves."""
