"""Structured output: grammars, compiled once for a model and matched token by token."""
