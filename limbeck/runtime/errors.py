"""The two ways a command ends badly: the user's input (exit status 2) or a failure while running (exit status 1)."""

import json


class Worded(Exception):
    """Its message is for people."""


class Misfit(Worded, TypeError):
    """What JSON holds is something else than it should be."""


class Unsound(Worded, ValueError):
    """What a file holds cannot be."""


class _OneLine(Worded):
    """Says itself in one line, whatever names of files and classes have gone into it."""

    def __str__(self) -> str:
        return super().__str__().translate(_LINE_ENDS)


_LINE_ENDS = {ord(end): repr(end)[1:-1] for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


class UsageError(_OneLine, ValueError):
    """What was asked for cannot be done; the message names the key, the value and what is accepted.

    Example:
        >>> try:
        ...     require(False, "ipc", 0, "at least 1")
        ... except UsageError as error:
        ...     print(error)
        ipc: 0 is not at least 1
    """


class Failure(_OneLine, RuntimeError):
    """A run that began well could not go on; the message says why and what is kept.

    Example:
        >>> isinstance(Failure("expert 3 diverged in epoch 2"), RuntimeError)
        True
    """


class DiskFailure(Failure):
    """A disk failed while work went on: it was full, or has gone. What was finished is kept, and work goes on from there.

    Example:
        >>> isinstance(DiskFailure("the disk is full: 'runs/a/metrics.jsonl' could not be written; make room there"), Failure)
        True
    """


class RankLost(Failure):
    """Of the processes that compute a run together one has ended before the others, or cannot be reached.

    Example:
        >>> isinstance(RankLost("rank 2 of 4 has ended, and with it the run"), Failure)
        True
    """


def require(condition: bool, key: str, value: object, accepted: str) -> None:
    """Raise `UsageError` with the message "key: value is not accepted" unless `condition` holds.

    Args:
        condition: whether the value is acceptable.
        key: the dotted name that the user typed, such as `match.drop_ratio`.
        value: the value that was given.
        accepted: what is accepted, such as "in [0, 1)".

    Raises:
        UsageError: when `condition` is false.
    """
    if not condition:
        raise UsageError(f"{key}: {value!r} is not {accepted}")


def one_line(error: BaseException, most: int = 300) -> str:
    """What went wrong, in one line of at most so many letters; the kind of error where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def reason(error: BaseException, most: int = 200) -> str:
    """Why a file cannot be read, for people, whatever its bytes have led to: Python's own words for it say nothing to them."""
    if isinstance(error, json.JSONDecodeError):
        return "it is no JSON"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return f"{error.args[0]:.60} is missing"
    if isinstance(error, (Worded, OSError)) or (type(error) is ValueError and _is_ours(error)):
        return one_line(error, most)
    return "it holds something else than it should"


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised where files are read, with a message of ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("limbeck.runtime.")
