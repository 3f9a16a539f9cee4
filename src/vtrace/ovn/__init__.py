"""Adapters to OVN: the only code that speaks OVSDB to the northbound and southbound databases."""
