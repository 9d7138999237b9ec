"""Replies without a model."""
