"""Capacity planning: measure the steps of a model once, then simulate the queue and the schedulers."""
