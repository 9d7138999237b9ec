"""`python -m chatstream_flask`: the commands of `flask chatstream`."""

from .cli.cli import cli

if __name__ == "__main__":
    cli(prog_name="python -m chatstream_flask")
