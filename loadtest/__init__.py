"""Load tests of the HTTP API: simulated visitors hold conversations and check every reply."""
