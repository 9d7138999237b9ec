"""`python -m chatstream_flask serve`: the same commands as `flask chatstream`."""

from .cli.cli import cli

if __name__ == "__main__":
    cli(prog_name="python -m chatstream_flask")
