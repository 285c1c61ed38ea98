"""The recipe of the embedded models: `python -m rsvp.embedded.recipe reasoner|segmenter`."""
