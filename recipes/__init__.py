"""Recipes that train models, run from a checkout."""
