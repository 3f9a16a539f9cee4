"""Synthetic clouds and their log records, with the truth beside them. Shares no code with what is tested by them."""
