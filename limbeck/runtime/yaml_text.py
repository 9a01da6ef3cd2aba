"""YAML that anybody may have written: bounded in bytes, depth and values, those that aliases repeat counted each time."""

import re
from typing import Any

import yaml

from limbeck.runtime.bounded import DEEPEST

MOST_YAML = 2**20  # bytes
MOST_NODES = 100_000


class Bounded(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML 1.1 as PyYAML reads it, which makes nothing but plain values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0
        self.sizes: dict[int, int] = {}  # of nodes that are complete, with all that is in them

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark, before, alias = self.peek_event().start_mark, self.count, self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _beyond(f"it is nested deeper than the {DEEPEST} levels that are accepted", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and id(node) not in self.sizes:
            raise _beyond("an alias stands inside of what it repeats", mark)
        self.count += self.sizes[id(node)] if alias else 1
        if self.count > MOST_NODES:
            raise _beyond(f"it has more than the {MOST_NODES} values that are accepted, aliases counted", mark)
        self.sizes.setdefault(id(node), self.count - before)
        return node


class Core(Bounded):
    """YAML 1.2's core types (in YAML 1.1 `1e3` is text, `no` is false and `1:30` is ninety); a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        constructed: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return constructed


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)


def yaml_of(text: str, kind: type[Bounded] = Core) -> Any:
    """The value in a text of YAML; None in an empty one.

    Raises:
        ValueError: when it is none, holds what only code could make, or is beyond a bound; in one line, which says where.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it has more than the {MOST_YAML} letters that are accepted")
    try:
        return yaml.load(text, Loader=kind)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, ", ".join(filter(None, (error.context, error.problem)))
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{where}{' '.join(problem.split())}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except Exception as error:  # tags that are given, such as !!int before a word, make PyYAML raise whatever the word leads to
        raise ValueError(f"it holds something else than its tags say ({type(error).__name__})") from error


def _beyond(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, mark)
