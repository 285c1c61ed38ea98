"""Experiments: scripts on the library, run from a checkout with `python -m eval.NAME`."""
