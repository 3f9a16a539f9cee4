"""Clouds of bridges without OVN: their inventory file, and what stands for the OVN databases."""
