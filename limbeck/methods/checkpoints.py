"""The checkpoints of an outer loop: the last two, and the one of the best evaluation.

    checkpoint.safetensors           from which a stopped run goes on
    checkpoint-before.safetensors    the one written before it
    checkpoint-best.safetensors      from just before the evaluation that is the best so far

Each is whole or absent, and the last one takes its place while the one before has one already: there is no moment without. Where
the last one is damaged the run goes on from the one before, else from the best, and ends with the same bits, only later.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from limbeck.methods.state import CHECKPOINT, Best, OuterState, Reached
from limbeck.parametrisations.parametrisation import Decoder
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import put_copy, read_tensor_header
from limbeck.runtime.sealed import Damaged


class Checkpoints:
    """Those in a folder.

    Args:
        folder: of the run.
        of: the run, as its files name it.
        say: takes a note for people.
        decoder: what leads from what is stored to images.
    """

    def __init__(self, folder: Path, of: str, say: Callable[[str], None], decoder: Decoder = Decoder()) -> None:
        self.of, self.say, self.decoder = of, say, decoder
        self.last, self.before, self.best = (folder / f"checkpoint{which}.safetensors" for which in ("", "-before", "-best"))
        self.written: int | None = None  # the iteration of `last`, once it is known to be sound
        self.loaded = False  # and nothing has been written since

    def load(self, device: torch.device) -> OuterState | None:
        """The state to go on from; None where there is no checkpoint.

        Raises:
            UsageError: when none of those that are there is sound.
        """
        reasons = dict[Path, str]()
        for path in (self.last, self.before, self.best):
            try:
                state = OuterState.load(path, device, self.of, self.decoder)
            except FileNotFoundError:
                continue
            except (OSError, Damaged) as error:
                reasons[path] = str(error)
                continue
            if path != self.last:
                what = f"is broken ({reasons[self.last]})" if self.last in reasons else "is gone"
                self.say(f"warning: {str(self.last)!r} {what}; going on from iteration {state.iteration} of {path.name}")
                put_copy(path, self.last)
            self.written, self.loaded = state.iteration, True
            return state
        for path, reason in reasons.items():
            raise UsageError(f"output: {str(path)!r} is broken ({reason}); delete it, and the distillation starts anew")
        return None

    def save(self, state: OuterState) -> None:
        """Write the state as the last one, unless it has just been read from there."""
        if not (self.loaded and self.written == state.iteration):
            if self.written not in (None, state.iteration):
                put_copy(self.last, self.before)
            state.save(self.last, self.of)
        self.written, self.loaded = state.iteration, False

    def save_best(self, state: OuterState, before: Best | None) -> None:
        """Keep the state that an evaluation has found the best; `before` is what was the best until then.

        A run that goes on from it evaluates it again, and finds the same.
        """
        if self.written == state.iteration:
            put_copy(self.last, self.best)
        else:
            replace(state, best=before).save(self.best, self.of)

    def load_best(self, iteration: int, device: torch.device) -> OuterState:
        """The state of the best evaluation, which is to be that after so many iterations.

        Raises:
            OSError: when there is none.
            Damaged: when it is not that.
        """
        state = OuterState.load(self.best, device, self.of, self.decoder)
        if state.iteration != iteration:
            raise Damaged(f"it is of iteration {state.iteration}, not {iteration}")
        return state

    def needed(self) -> set[int]:
        """The iterations whose snapshots the checkpoints may go back to: the best, and those at which the loop got on."""
        found = set[int]()
        for path in (self.last, self.before):
            try:
                reached = Reached.from_dict(read_tensor_header(path, CHECKPOINT, self.of, say=False).metadata)
            except (OSError, ValueError, TypeError):
                continue
            found |= {reached.health.good, *([reached.best.iteration] if reached.best else [])}
        return found
