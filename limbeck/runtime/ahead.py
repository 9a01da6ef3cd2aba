"""Functions of tensors compiled ahead of time for a CPU: one library for every shape, which is called outside Python's lock.

`torch.compile` imports the whole compiler before it finds what it has compiled before, looks at every call whether it still holds,
and keeps some hundred MB for that. Here a function is traced to its operations, and the library that an earlier process has made of
the same operations is opened. The numbers are the same to the bit: they are the same passes.
"""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from limbeck.runtime.compiling import OPTIONS, keep_compiled_code
from limbeck.runtime.devices import so_many_threads
from limbeck.runtime.errors import Failure
from limbeck.runtime.executor.environment import cores
from limbeck.runtime.executor.interface import Tick
from limbeck.runtime.executor.local import Local
from limbeck.runtime.fingerprint import array_fingerprint, fingerprint
from limbeck.runtime.leftovers import passing_folder, tidy_once

LIBRARY = "function.so"
# Two or three libraries are made at a time: what helps with many of them takes longer than it saves.
ONCE = {
    "aot_inductor.precompile_headers": False,
    "cpp_cache_precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",  # of what calls the passes
}
# A pointer and a count, and three functions of a library: torch's header `aoti_runtime/interface.h` has them.
POINTER, COUNT = ctypes.c_void_p, ctypes.c_size_t
CREATE = ("AOTInductorModelContainerCreateWithDevice", (ctypes.POINTER(POINTER), COUNT, ctypes.c_char_p, ctypes.c_char_p))
RUN = ("AOTInductorModelContainerRun", (POINTER, POINTER, COUNT, POINTER, COUNT, POINTER, POINTER))
OUTPUTS = ("AOTInductorModelContainerGetNumOutputs", (POINTER, ctypes.POINTER(COUNT)))


@dataclass(frozen=True, eq=False)
class Traced:
    """The operations of a function on tensors of some shapes.

    Args:
        graph: of the operations, from a list of tensors to a list of tensors.
        tensors: its arguments.
        threads: that it computes with.
        path: where its library lies, or is to lie.
    """

    graph: torch.fx.GraphModule
    tensors: Sequence[Tensor]
    threads: int
    path: Path

    @classmethod
    def of(cls, function: Callable[..., Any], tensors: Sequence[Tensor], given: TreeSpec) -> tuple["Traced", TreeSpec]:
        """Those of a function of trees that are put together from tensors, and what its results are put together to.

        Nothing is computed.
        """
        from torch.fx.experimental.proxy_tensor import make_fx

        returned: list[TreeSpec] = []

        def flat(*tensors: Tensor) -> list[Tensor]:
            with torch.no_grad():
                results, tree = tree_flatten(function(*tree_unflatten(list(tensors), given)))
            returned.append(tree)
            return results

        graph, threads = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors), torch.get_num_threads()
        graph._tracer_cls = None  # a graph that is unpacked is traced again: plainly, not with values as it was here
        return cls(graph, tensors, threads, _place() / f"{_identity(graph, tensors, threads)}.so"), returned[0]

    def make(self) -> None:
        """Make the library; raises whatever the compiler raises."""
        import torch._inductor

        tidy_once(self.path.parent)
        with passing_folder(self.path.parent) as folder, catch_warnings(), so_many_threads(self.threads):
            simplefilter("ignore", FutureWarning)  # torch's, of itself
            made, known = folder / LIBRARY, torch._inductor.list_options()
            options = {key: value for key, value in {**OPTIONS, **ONCE}.items() if key in known}
            options["aot_inductor.output_path"] = str(made)
            torch._inductor.aot_compile(self.graph, tuple(self.tensors), options=options)
            os.replace(made, self.path)


def _place() -> Path:
    """Where libraries for this processor lie."""
    keep_compiled_code()
    return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "ahead"


def _identity(graph: torch.fx.GraphModule, tensors: Sequence[Tensor], threads: int) -> str:
    """All that a library depends on but the processor."""
    code = [(name, one.code) for name, one in graph.named_modules() if isinstance(one, torch.fx.GraphModule)]
    inputs = [(tuple(x.shape), x.stride(), str(x.dtype)) for x in tensors]
    constants = [
        (name, tuple(value.shape), str(value.dtype), array_fingerprint(value.reshape(-1).view(torch.uint8).numpy(force=True)))
        for name, value in sorted(graph.state_dict().items())
    ]
    asked = [torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), OPTIONS, threads]
    return fingerprint([code, inputs, constants, torch.__version__, torch.version.git_version, *asked])


_missing: list[Traced] | None = None


@contextmanager
def made_side_by_side() -> Iterator[None]:
    """Within it functions that lack a library are called as they are; when it ends these are made, in as many processes as cores.

    A library that cannot be made is no error here: who calls the function hears of it.
    """
    global _missing
    missing: list[Traced] = []
    _missing = missing
    try:
        yield
    finally:
        _missing = None
    at_once = min(cores(), len(missing))
    if at_once > 1:
        with suppress(Failure):  # a process was killed
            deque(Local().run(_make, None, missing, at_once=at_once), maxlen=0)


def _make(shared: None, traced: Traced, tick: Tick) -> None:
    with suppress(Exception):  # a compiler fails in many ways, and does again where the library is wanted
        traced.make()


@dataclass(frozen=True, eq=False)
class Ahead:
    """`function` of tensors, and of trees of them, compiled at its first call with arguments of a shape; without gradients.

    Args:
        function: what it does to tensors may depend on their shapes alone, and draws nothing.
        at_once: how many threads may be in it at the same time.
        otherwise: what is called in its place with arguments that it cannot be compiled for; None raises.

    Example:
        >>> import torch
        >>> doubled = Ahead(lambda x: {"twice": 2 * x})
        >>> doubled(torch.arange(3.0))["twice"]  # doctest: +SKIP
        tensor([0., 2., 4.])
    """

    function: Callable[..., Any]
    at_once: int = 1
    otherwise: Callable[..., Any] | None = None
    _made: dict[Any, tuple["Library", TreeSpec] | None] = field(default_factory=dict, init=False, repr=False)
    _traced: dict[Any, tuple[Traced, TreeSpec]] = field(default_factory=dict, init=False, repr=False)
    _lock: Any = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, *arguments: Any) -> Any:
        """Its value.

        Raises:
            RuntimeError: where it cannot be run, and whatever the compiler raises.
        """
        tensors, given = tree_flatten(arguments)
        seen = (given, torch.get_num_threads(), *((x.shape, x.stride(), x.dtype) for x in tensors))
        if seen not in self._made and not self._make(seen, tensors, given):
            return self.function(*arguments)
        if (made := self._made[seen]) is None:
            assert self.otherwise is not None, "or it had raised"
            return self.otherwise(*arguments)
        library, returned = made
        return tree_unflatten(library(tensors), returned)

    def _make(self, seen: Any, tensors: Sequence[Tensor], given: TreeSpec) -> bool:
        """Open the library, which may have to be made; False where that is put off."""
        with self._lock:
            if seen in self._made:
                return True
            try:
                traced, returned = self._traced.get(seen) or Traced.of(self.function, tensors, given)
                if _missing is not None and not traced.path.exists():
                    self._traced[seen] = traced, returned
                    _missing.append(traced)
                    return False
                opened = self._opened(traced)
                opened(tensors)  # one that has operations of somebody's own can be made, and not be run
                self._made[seen] = opened, returned
                self._traced.pop(seen, None)
            except Exception:  # a compiler fails in many ways
                if self.otherwise is None:
                    raise
                self._made[seen] = None
        return True

    def _opened(self, traced: Traced) -> "Library":
        """Its library, made where there is none that can be opened."""
        if traced.path.exists():
            with suppress(OSError):  # it is damaged
                return Library(traced.path, self.at_once)
        traced.make()
        return Library(traced.path, self.at_once)


@dataclass(frozen=True, eq=False)
class Library:
    """A compiled function of a list of tensors.

    Args:
        path: of the library.
        at_once: how many threads may be in it at the same time.

    Raises:
        OSError: when it cannot be opened.
        RuntimeError: when it has not what is expected of it.
    """

    path: Path
    at_once: int

    def __post_init__(self) -> None:
        _ = self._container

    @cached_property
    def _functions(self) -> dict[str, Any]:
        held = ctypes.CDLL(str(self.path))
        for name, types in (CREATE, RUN, OUTPUTS):
            getattr(held, name).argtypes = types
        return {name: getattr(held, name) for name, _ in (CREATE, RUN, OUTPUTS)}

    @cached_property
    def _container(self) -> tuple[ctypes.c_void_p, int]:
        """What runs it, which lives as long as the process, and the number of results."""
        container, outputs = POINTER(), COUNT()
        self._call(CREATE[0], ctypes.byref(container), self.at_once, b"cpu", None)
        self._call(OUTPUTS[0], container, ctypes.byref(outputs))
        return container, outputs.value

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Its results."""
        container, count = self._container
        given = [_pointer(capsule) for capsule in torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))]
        results = (POINTER * count)()
        # The library owns what it is given from now on, and we what it gives. ctypes lets go of Python's lock meanwhile.
        self._call(RUN[0], container, (POINTER * len(given))(*given), len(given), results, count, None, None)
        found: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs([_capsule(one) for one in results])
        return found

    def _call(self, name: str, *arguments: Any) -> None:
        if self._functions[name](*arguments):
            raise RuntimeError(f"{name} of {self.path} failed")


_name_of, _pointer_of, _capsule_of = (
    ctypes.pythonapi.PyCapsule_GetName,
    ctypes.pythonapi.PyCapsule_GetPointer,
    ctypes.pythonapi.PyCapsule_New,
)
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer_of.restype, _pointer_of.argtypes = POINTER, [ctypes.py_object, ctypes.c_char_p]
_capsule_of.restype, _capsule_of.argtypes = ctypes.py_object, [POINTER, ctypes.c_char_p, POINTER]


def _pointer(capsule: Any) -> int | None:
    address: int | None = _pointer_of(capsule, _name_of(capsule))
    return address


def _capsule(address: int | None) -> Any:
    return _capsule_of(address, None, None)
