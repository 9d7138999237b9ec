"""Small complete apps, each in one file and started with one command."""
