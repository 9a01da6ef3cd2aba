"""Claims in a store of objects: a lock between machines that share nothing else.

A claim is a numbered object, `claims/00000012.json`, put where none of that number is, which at most one process can. It says
whose it is, and once it is given back that it is free; its owner writes it anew every `RENEWED` seconds. Who finds the highest
one free, its owner dead, or by the store's own clock not renewed for `DEAD_AFTER` seconds, claims the next number. Nobody removes
the highest: whoever has put one that is not, because he looked long ago, sees that and takes it away again.
"""

import json
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import token_hex

from limbeck.runtime.errors import UsageError
from limbeck.runtime.locks import DEAD_AFTER, FIRST_LOOK, RENEWED, Busy, lock
from limbeck.runtime.owner import Owner
from limbeck.runtime.remote import Remote

LONGEST_LOOK = 5.0  # seconds between two looks at a claim that is held


class Claim:
    """A lock on a place in a store, which processes of this machine and of others respect; use it as a context manager.

    Args:
        remote: what it protects.
        local: the same for processes of this machine, which spares them the store.
    """

    def __init__(self, remote: Remote, local: Path) -> None:
        self._remote, self._local = remote / "claims", local
        self._held, self._number, self._over = ExitStack(), 0, threading.Event()

    def acquire(self, timeout: float | None = None) -> "Claim":
        """Take it.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            Busy: when another process held it for so long.
            UsageError: when the store cannot be reached or written to.
        """
        began, pause = time.monotonic(), FIRST_LOOK
        held = ExitStack()
        held.enter_context(lock(self._local).acquire(timeout))
        try:
            while not self._taken():
                left = None if timeout is None else timeout - (time.monotonic() - began)
                if left is not None and left <= 0:
                    raise Busy(str(self._owner(max(self._numbers(), default=0)) or "another process"))
                time.sleep(pause if left is None else min(pause, left))
                pause = min(2 * pause, LONGEST_LOOK)
        except BaseException:
            held.close()
            raise
        self._held, self._over = held, threading.Event()
        self._renewing = threading.Thread(target=self._renew, args=(self._number, self._over), daemon=True)
        self._renewing.start()
        return self

    def release(self) -> None:
        """Give it back."""
        number, self._number = self._number, 0
        self._over.set()
        if number:
            self._renewing.join()  # or it would claim what has just been given back
            with suppress(UsageError):  # it goes by itself, later
                self._place(number).put(json.dumps({"free": True}).encode())
                for lower in self._numbers():
                    if lower < number:
                        self._place(lower).remove()
        self._held.close()

    def __enter__(self) -> "Claim":
        return self if self._number else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._remote.names())
        return [int(name) for name in names if name.isdecimal()]

    def _place(self, number: int) -> Remote:
        return self._remote / f"{number:08d}.json"

    def _taken(self) -> bool:
        """Try once."""
        number = max(self._numbers(), default=0)
        if number and not self._is_free(number):
            return False
        if not self._place(number + 1).put_new(_own()):
            return False
        if max(self._numbers(), default=0) > number + 1:  # others had it since, gave it back and removed it
            self._place(number + 1).remove()
            return False
        self._number = number + 1
        return True

    def _owner(self, number: int) -> Owner | None:
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            return Owner.from_dict(json.loads(self._place(number).read()))
        return None

    def _is_free(self, number: int) -> bool:
        try:
            said = json.loads(self._place(number).read())
            if said.get("free"):
                return True
            owner = Owner.from_dict(said)
        except FileNotFoundError:
            return False  # removed, because it is not the highest any more
        except (ValueError, TypeError, KeyError, AttributeError):
            owner = None
        if owner is not None and owner.runs is not None:
            return not owner.runs
        now = self._remote / f"look-{token_hex(8)}"
        now.put_new(b"")
        try:
            return self._place(number).age(now) > DEAD_AFTER
        except FileNotFoundError:
            return False
        finally:
            now.remove()

    def _renew(self, number: int, over: threading.Event) -> None:
        while not over.wait(RENEWED):
            with suppress(UsageError):
                self._place(number).put(_own())


def _own() -> bytes:
    return json.dumps(Owner.here().to_dict()).encode()
