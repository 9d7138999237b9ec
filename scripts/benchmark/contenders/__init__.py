"""Contenders: each module is one way to generate text, and imports only what that needs."""
