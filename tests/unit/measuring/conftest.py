"""Puts this folder on the import path (pytest does so for a conftest.py), so that tests find `clouds`."""
