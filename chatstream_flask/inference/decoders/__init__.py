"""Ways to compute a forward pass."""
