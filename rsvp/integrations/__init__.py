"""rsvp inside other programs, which import these modules by name."""
