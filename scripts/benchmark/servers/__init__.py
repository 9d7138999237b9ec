"""Servers that are compared: each module has one, and imports nothing that only it needs."""
