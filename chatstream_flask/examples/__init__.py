"""Complete small apps, each in one file and run with one command."""
