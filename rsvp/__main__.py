"""`python -m rsvp` is the command `rsvp`."""

from rsvp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
