"""The command `rsvp`: exit codes, one-line errors, and the table of commands."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from rsvp import __version__, registry
from rsvp.cli import console, settings
from rsvp.errors import ModelUnavailable, RsvpError, UnparsableReply, first_line

UNEXPECTED, USAGE, INTERRUPTED = 1, 2, 130
LONGEST = 2000  # characters of an error line: a file's own words may be of any length
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# typer brings its own copy of click or uses the real one, depending on its version; the base of
# their usage errors is reached through a name that every version exports.
_UsageError = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="rsvp",
    rich_markup_mode=None,  # rich costs a tenth of a second at every start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        console.print_out(f"rsvp {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Ask about an image in plain words; get the reason and the exact pixels.

    Exit codes: 0 done (no target is done), 2 usage or bad input, 3 the MLLM failed, 4 a model or
    an optional package is missing, 130 interrupted.
    """


def _add_commands() -> None:
    """Add every command, plug-ins last; of a plug-in that cannot be used there is a warning."""
    for name in registry.names("command"):
        try:
            command = registry.load("command", name)
            if name not in registry.BUILT_IN["command"]:
                _check_command(name, command)
            app.command(name)(command)
        except ModelUnavailable as error:
            console.warn(str(error))


def _check_command(name: str, command: Callable[..., Any]) -> None:
    """Raise ModelUnavailable where typer cannot make a command of a plug-in's function."""
    alone = typer.Typer()
    try:
        alone.command(name)(command)
        typer.main.get_command(alone)
    except Exception as error:
        raise ModelUnavailable(f"command {name} cannot be used: {first_line(error)}") from error


_add_commands()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: the arguments after `rsvp`; those of this process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    is_closed = sys.stdout is None  # by `>&-`
    _prepare_streams()
    console.set_quiet(False)
    if is_closed and "--json" in arguments:  # before any work is done for nothing
        return _fail("cannot write the JSON: stdout is closed", USAGE)
    try:
        code = app(
            args=arguments or ["--help"],
            prog_name="rsvp",
            standalone_mode=False,
            default_map=settings.default_map(app),
        )
        if code == INTERRUPTED:  # how some versions of typer end on Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if "--debug" in arguments:
            import traceback

            console.print_err(traceback.format_exc())
            if isinstance(error, UnparsableReply):
                console.print_err(f"the reply was:\n{error.raw}")
        return _fail(*_explained(error))
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit code."""
    if isinstance(error, RsvpError):
        return str(error), error.exit_code
    if isinstance(error, _UsageError):
        message: Any = error
        return f"{message.format_message().rstrip('.')} (see --help)", USAGE
    if isinstance(error, BrokenPipeError):  # the reader, e.g. `head`, has seen enough
        _discard_stdout()
        return "", UNEXPECTED
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        _discard_stdout()
        return f"cannot write {error.filename or 'the output'}: {error.strerror}", USAGE
    if isinstance(error, MemoryError):
        return "there is not enough memory; try a smaller preset, see: rsvp models", UNEXPECTED
    name = type(error).__name__
    return f"unexpected {name}: {error} (--debug shows where it comes from)", UNEXPECTED


def _fail(message: str, code: int) -> int:
    line = console.plain(message)
    if len(line) > LONGEST:  # what to do stands at the end
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    if line:
        console.error(line)
    return code


def _discard_stdout() -> None:
    """Where stdout takes no more; else Python would complain at its end of what is left."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Give the streams that the caller closed to nobody, and never their numbers to a file.

    A terminal that lacks a character gets an escape instead of a crash.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """On a full disk, TensorBoard's thread passes its error on; its traceback says no more."""
    if getattr(failure.exc_value, "errno", None) not in _DISK_FULL:
        threading.__excepthook__(failure)


def entry() -> None:
    """The installed command. After Ctrl-C it does not wait for threads that wait for a server."""
    threading.excepthook = _thread_failed
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    entry()
