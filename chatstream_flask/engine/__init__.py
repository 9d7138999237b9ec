"""Generation without HTTP: requests, queue, scheduling, text. Imports neither torch nor Flask."""
