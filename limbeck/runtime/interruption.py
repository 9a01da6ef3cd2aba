"""How a run is ended from outside: Ctrl-C, a queue that takes the machine back (SIGTERM), a terminal that is closed (SIGHUP).

What is asked for is raised as `Interrupted`, a `KeyboardInterrupt`, where the program is; everything that is written is written
whole or not at all, so that this may be anywhere. A loop that changes its state in place says so by `finishing`: what is asked
for inside of it waits for its end, `PATIENCE` seconds at most. A second time ends the process at once.

The command handles all three (`handled`), also where a shell has begun it in the background and with that had it ignore Ctrl-C,
but not SIGHUP where `nohup` has it ignored. Whatever hinders the process, after `LAST` seconds it is ended from another thread.
In Python only Ctrl-C is handled, and only within a loop (`stoppable`); the caller's handler is back at its end.
"""

import _thread
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

PATIENCE = 4.0  # seconds that an iteration has to end
LAST = 8.5  # seconds after which the process is ended, come what may
AGAIN = 1.0  # a terminal, a shell and a queue may all say the same: within so many seconds it is one request
ENDS_WITH = "LIMBECK_ENDS_WITH"  # a variable that names the process whose end a command is to end with
LOOK_EVERY = 0.2
KINDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The run was asked to end by a signal, of that number, at a time of the monotonic clock."""

    def __init__(self, number: int = signal.SIGINT, asked: float = 0.0) -> None:
        super().__init__(number, asked)
        self.number, self.asked = number, asked

    def __str__(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """What the process is to exit with, as a shell would have it."""
        return 128 + self.number


class _Handler:
    """Takes signals.

    Args:
        at_once: what a second one does.
        bounded: whether the process is ended when it has not ended after `LAST` seconds, by `at_once`.
    """

    def __init__(self, at_once: Callable[[int], None], bounded: bool) -> None:
        self.at_once, self.bounded = at_once, bounded
        self.number, self.began = 0, 0.0
        self.finishing = 0
        self.over = threading.Event()
        self._overdue = False
        self._raised: Callable[[], object] = lambda: None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._overdue:
            self._overdue = False
            raise self._new()
        if not self.number:
            self.number, self.began = number, time.monotonic()
            _let_go_of_terminal()
            threading.Thread(target=self._follow, daemon=True).start()
            if not self.finishing:
                raise self._new()
        elif time.monotonic() - self.began > AGAIN:
            self.at_once(self.number)

    @contextmanager
    def until_end(self) -> Iterator[None]:
        self.finishing += 1
        try:
            yield
        finally:
            self.finishing -= 1
            if self.number and not self.finishing and self._raised() is None:
                raise self._new()

    def _new(self) -> Interrupted:
        # Known weakly: what somebody swallowed is gone, and asked for again.
        made = Interrupted(self.number, self.began)
        self._raised = weakref.ref(made)
        return made

    def _follow(self) -> None:
        """See to it, in another thread, that what was asked for is done in time."""
        while not self.over.wait(LOOK_EVERY):
            passed = time.monotonic() - self.began
            if self.bounded and passed > LAST:
                self.at_once(self.number)
            if passed > PATIENCE and self._raised() is None and not self._overdue:
                self._overdue = True
                _ask_again(self.number)


def _ask_again(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # which wakes the thread where it waits for something
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


_current: _Handler | None = None


@contextmanager
def finishing() -> Iterator[None]:
    """A request to end waits for the end of the block, for a while: what is changed inside is changed wholly."""
    if _current is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _current.until_end():
        yield


def asked() -> bool:
    """Whether this process is to end, which it is told at the end of `finishing`."""
    return _current is not None and _current.number != 0


def stop() -> None:
    """End this process as it was asked to, or as if it had been: another one of the same run was."""
    raise _current._new() if _current is not None and _current.number else Interrupted(signal.SIGTERM, time.monotonic())


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside the block `finishing` keeps Ctrl-C waiting, too, where Python's own handler would raise it at any moment."""
    # A handler of the caller's own is his to have, and in other threads nothing is ever raised.
    own = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if _current is not None or not own:
        yield
        return
    with _installed(_Handler(_raise, bounded=False), (signal.SIGINT,)):
        yield


@contextmanager
def handled(goes_on: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Inside the block of a command all of `KINDS` end the process in order, and in time.

    Args:
        goes_on: what to add to the last words of a process that is ended at once.
    """
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler(lambda number: abandon(number, goes_on()), bounded=True)
    if parent := os.environ.pop(ENDS_WITH, ""):
        threading.Thread(target=_end_with, args=(int(parent), handler.over), daemon=True).start()
    ignored = {one for one in KINDS if one == getattr(signal, "SIGHUP", None) and signal.getsignal(one) is signal.SIG_IGN}
    with _installed(handler, tuple(one for one in KINDS if one not in ignored)), _watched(handler), _quiet():
        yield


def _end_with(parent: int, over: threading.Event) -> None:
    while not over.wait(LOOK_EVERY):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _raise(number: int) -> None:
    raise Interrupted(number)


def _let_go_of_terminal() -> None:
    """Write to nowhere where the terminal has gone: a last word that cannot be said must not be what a run fails by."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@contextmanager
def _installed(handler: _Handler, kinds: tuple[signal.Signals, ...]) -> Iterator[None]:
    global _current
    before = {one: signal.getsignal(one) for one in kinds}
    _current = handler
    try:
        for one in kinds:
            signal.signal(one, handler)
        yield
    finally:
        handler.over.set()
        _current = None
        for one, old in before.items():
            signal.signal(one, signal.SIG_DFL if old is None else old)


@contextmanager
def _watched(handler: _Handler) -> Iterator[None]:
    """End the process in time even where Python does not come to handle a signal, because it waits for some library."""
    if sys.platform == "win32":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        number = 0
        while number not in KINDS:
            said = os.read(reading, 1)
            if not said:
                return
            number = said[0]
        if not handler.over.wait(LAST + 0.5):
            handler.at_once(number)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        handler.over.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join(1.0)
        os.close(reading)


@contextmanager
def _quiet() -> Iterator[None]:
    """What is raised where nobody can take it, as in a finaliser, is asked for again and needs no word."""
    before = sys.unraisablehook

    def hook(said: "sys.UnraisableHookArgs") -> None:
        if said.exc_type is not Interrupted:
            before(said)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started inside the block, by this thread, get none of `KINDS` until they ask for them.

    A signal for the whole group would otherwise meet them before they are ready for it; what this thread gets waits meanwhile.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KINDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_all() -> None:
    """Have this process, a worker, ignore all of `KINDS`: whoever started it ends it."""
    for one in KINDS:
        signal.signal(one, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, KINDS)


def abandon(number: int, goes_on: str = "") -> None:
    """End this process at once, with its children and whatever it is writing."""
    from limbeck.runtime.leftovers import remove_all

    end_children(0.3)
    remove_all()
    with suppress(OSError):
        os.write(2, f"limbeck: ended at once by {Interrupted(number)}{goes_on}\n".encode())
    os._exit(128 + number)


def end_in_time(error: Interrupted) -> None:
    """End this process, which has nothing more to do, from another thread if something hinders it."""

    def end() -> None:
        time.sleep(max(0.5, error.asked + LAST - time.monotonic()))
        abandon(error.number)

    threading.Thread(target=end, daemon=True).start()


def end_children(grace: float = 2.0, among: Callable[[list[str]], bool] = lambda words: True) -> None:
    """End the processes that this one has started, and theirs: SIGTERM, and SIGKILL after some seconds.

    Args:
        grace: so many.
        among: whether to end a process of that command line.
    """
    import psutil

    found = [child for child in psutil.Process().children(recursive=True) if _ends(child, among)]
    for ask in ("terminate", "kill"):
        for child in found:
            with suppress(psutil.Error):
                getattr(child, ask)()
        found = psutil.wait_procs(found, timeout=grace)[1]


def _ends(child: Any, among: Callable[[list[str]], bool]) -> bool:
    try:
        words = child.cmdline()
    except Exception:  # noqa: BLE001 (it may be gone)
        return False
    # A tracker tidies up what the others have left, and ends with them.
    return not any("resource_tracker" in word for word in words) and among(words)
