"""Compiled code for steps on CPU, built when the package is installed where there is a C compiler."""
