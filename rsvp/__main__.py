"""`python -m rsvp` is the command `rsvp`."""

from rsvp.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
