"""Changes to single statements of functions, as mutmut makes them, and how a running process takes one on."""

import difflib
import gc
import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType

ROOT = Path(__file__).parents[1]
MESSAGES = ("require", "UsageError", "Failure", "note", "warn")


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        path: the file, relative to the repository.
        function: the outermost function that holds the change, with its class.
        first: its first line, decorators included.
        lines: first and last line of the changed statement.
        diff: lines taken out and put in.
        key: what it is known by: the function as it was, and what was changed.
        source: the whole file with the change.
    """

    path: str
    function: str
    first: int
    lines: tuple[int, int]
    diff: str
    key: str
    source: str

    @property
    def name(self) -> str:
        """The function's name, as its code object says it."""
        return self.function.rpartition(".")[2]


def mutants_of(path: Path, seed: int) -> list[tuple[str, Callable[[], Mutant]]]:
    """The file's mutants: by what each is drawn, and what makes it."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    wrapper = MetadataWrapper(cst.parse_module(path.read_text()), unsafe_skip_copy=True)
    module, places = wrapper.module, wrapper.resolve(PositionProvider)

    class Visitor(cst.CSTVisitor):
        def __init__(self) -> None:
            self.stack: list[cst.CSTNode] = []
            self.found: list[tuple[list[cst.CSTNode], cst.CSTNode, cst.CSTNode]] = []

        def on_visit(self, node: cst.CSTNode) -> bool:
            if isinstance(node, cst.Annotation | cst.Decorator | cst.Parameters):
                return False
            if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance", "cast"):
                return False
            if any(isinstance(one, cst.FunctionDef) for one in self.stack) and not self._message(node):
                for kind, operator in mutation_operators:
                    if isinstance(node, kind):
                        self.found += [(list(self.stack), node, other) for other in operator(node)]
            self.stack.append(node)
            return True

        def on_leave(self, node: cst.CSTNode) -> None:
            if self.stack and self.stack[-1] is node:
                self.stack.pop()

        def _message(self, node: cst.CSTNode) -> bool:
            if not isinstance(node, cst.SimpleString | cst.FormattedString | cst.ConcatenatedString):
                return False
            calls = [one.func for one in self.stack if isinstance(one, cst.Call)]
            named = any(getattr(call, "value", None) in MESSAGES or getattr(call, "attr", None) in MESSAGES for call in calls)
            return named or any(isinstance(one, cst.Raise | cst.Assert) for one in self.stack)

    visitor = Visitor()
    module.visit(visitor)

    # What a mutant is drawn by: its function's text and its number there, so that other functions' changes draw no others.
    texts: dict[cst.CSTNode, str] = {}
    counts: dict[str, int] = defaultdict(int)
    orders = []
    for stack, _, _ in visitor.found:
        function = next(one for one in stack if isinstance(one, cst.FunctionDef))
        text = texts.setdefault(function, module.code_for_node(function))
        orders.append(hashlib.sha256(f"{seed} {path.name} {text} {counts[text]}".encode()).hexdigest())
        counts[text] += 1

    def make(stack: list[cst.CSTNode], node: cst.CSTNode, other: cst.CSTNode) -> Mutant:
        outermost = next(i for i, one in enumerate(stack) if isinstance(one, cst.FunctionDef))
        function = stack[outermost]
        assert isinstance(function, cst.FunctionDef)
        owners = [one.name.value for one in stack[:outermost] if isinstance(one, cst.ClassDef)]
        # The changed statement; of one with a body, such as `if`, only what is changed.
        within = [*stack[outermost + 1 :], node]
        statement = next((one for one in within if isinstance(one, cst.BaseSmallStatement)), None)
        statement = statement or next(one for one in reversed([*stack, node]) if one in places)
        first = min(places[one].start.line for one in (function, *function.decorators))
        changed = module.deep_replace(node, other).code  # type: ignore[attr-defined]
        lines = difflib.unified_diff(module.code.splitlines(), changed.splitlines(), lineterm="", n=0)
        diff = "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
        start, end = places[statement].start.line, places[statement].end.line
        key = hashlib.sha256(f"{path.name} {texts[function]} {start - first} {diff}".encode()).hexdigest()[:16]
        name = ".".join([*owners, function.name.value])
        return Mutant(path.relative_to(ROOT).as_posix(), name, first, (start, end), diff, key, changed)

    return [(order, partial(make, *found)) for order, found in zip(orders, visitor.found, strict=True)]


def code_of(code: CodeType, name: str, first: int) -> CodeType | None:
    """The code of the function of that name on that line, somewhere within."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if (inner.co_name, inner.co_firstlineno) == (name, first):
                return inner
            found = code_of(inner, name, first)
            if found is not None:
                return found
    return None


Place = tuple[str, str, int]


def functions() -> dict[Place, list[FunctionType]]:
    """All functions of the package that there are, by file, name and first line."""
    found = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(str(ROOT / "limbeck")):
            code = one.__code__
            found[code.co_filename, code.co_name, code.co_firstlineno].append(one)
    return found


def exchange(mutant: Mutant, known: dict[Place, list[FunctionType]]) -> bool:
    """Give all functions that have the mutated code the mutant's; whether there is one."""
    path = str(ROOT / mutant.path)
    code = code_of(compile(mutant.source, path, "exec", dont_inherit=True), mutant.name, mutant.first)
    there = known[path, mutant.name, mutant.first]
    for function in there:
        function.__code__ = code
    return bool(there)
