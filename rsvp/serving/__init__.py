"""The HTTP API of `rsvp serve`, with the protocols of annotation tools; needs the extra `serve`."""
