"""Parts of a run: each module has `measure`, and `shown`, which formats the result."""
