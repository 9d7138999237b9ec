"""Commands of `flask chatstream` and `python -m chatstream_flask`."""
