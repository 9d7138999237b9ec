"""Generation without HTTP: nothing in this folder imports Flask."""
