"""The recipe of the embedded models: `python -m recipes.embedded reasoner|segmenter`."""
