"""The commands of `rsvp`, a file each. Model libraries are imported only when a command runs."""
