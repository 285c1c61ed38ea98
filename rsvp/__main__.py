"""`python -m rsvp` is the command `rsvp`."""

from rsvp.cli.main import entry

if __name__ == "__main__":
    entry()
