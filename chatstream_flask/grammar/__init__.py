"""Structured replies: grammars, compiled once and matched token by token."""
