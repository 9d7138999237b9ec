"""Engines on other machines, reached over HTTP: the model computes there, everything else happens here."""
