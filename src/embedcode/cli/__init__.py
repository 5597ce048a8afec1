"""The command line's edge: runs a verb and turns whatever happens into an exit code and at most one sentence.

0 done or found, 1 nothing found, 2 the user's error, 70 ours, 130 interrupted, 141 the reader of our output went away.
Knows no verb (they are in `app`), and nothing imports it. Verbs are imported inside, so that an interrupt is
answered from the first millisecond and `import embedcode.cli` costs nothing.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from embedcode.errors import EmbedcodeError

USER_ERROR, OUR_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141
LASTING = ("web", "mcp", "serve")
"""Verbs that work in threads until they are ended."""
WHOLE = {"models": (), "data": ("collect", "synthesize", "filter", "negatives")}
"""Verbs that write their output when they have all of it, and those of them that keep what they have."""


def main() -> None:
    """The `embedcode` command. Never shows a traceback, unless EMBEDCODE_DEBUG=1."""
    arguments = sys.argv[1:] or ["--help"]
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal that is not UTF-8 cannot show is spelled out there
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        whole = arguments[0] in WHOLE and arguments[1:2] != [] and arguments[1] not in WHOLE[arguments[0]]
        kept = "nothing was written" if whole else "what was finished is kept and the next run goes on from there"
        code = _fail(f"interrupted; {kept}", [], INTERRUPTED)
    except BrokenPipeError:
        code = BROKEN_PIPE
    if _is_stuck():  # the interpreter flushes once more as it ends, and would complain about the same output again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if arguments[0] in LASTING and arguments[1:] not in (["-h"], ["--help"]) and code != USER_ERROR:
        # A thread that is inside a library as Python ends would abort the process: 4 of 12 times, where `embedcode web`
        # was ended while it read a repository for the first time.
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    # `python -m` remembers an interrupt that ended a string of code, as a dataclass runs one where it is imported, and
    # would in the end kill itself by SIGINT, though it was caught: one of 8 times that --watch was stopped early.
    exec("")  # noqa: S102
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        from embedcode.cli.app import run

        return run(arguments)
    except EmbedcodeError as error:
        return _fail(str(error), arguments, USER_ERROR)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("EMBEDCODE_DEBUG", "0") not in ("", "0"):
            import traceback

            traceback.print_exc()
            return OUR_ERROR
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"unexpected {what}; {_log(error)}", arguments, OUR_ERROR)


def _is_stuck() -> bool:
    """Whether stdout holds what cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return True
    return False


def _fail(message: str, arguments: list[str], code: int) -> int:
    from embedcode.cli import output

    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in options and code != OUR_ERROR:
        with suppress(EmbedcodeError):  # stdout itself is what failed: the sentence goes to stderr
            output.put_json({"error": message})
            return code
    output.note(f"embedcode: {message}")
    return code


def _log(error: Exception) -> str:
    """Write the traceback to a file under home; says where, or why not."""
    import platform
    import traceback

    from embedcode import __version__, settings
    from embedcode.files import make_private

    try:
        path = settings.load().home / "crash.log"
        make_private(path.parent)
        heading = f"embedcode {__version__}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv}\n"
        path.write_text(heading + "".join(traceback.format_exception(error)), errors="backslashreplace")
    except (OSError, EmbedcodeError):
        return "run it again with EMBEDCODE_DEBUG=1 to see where"
    return f"please report it with {path}"
