"""`--skip-bad` beside `--data`, wherever that is an option."""

from argparse import Namespace

import pytest

from limbeck.cli import compare, distill, evaluate, experts
from limbeck.cli.command import Command, Parser, overrides_from, switched


@pytest.mark.parametrize("command", [distill.COMMAND, distill.PLAN, experts.COMMAND, evaluate.COMMAND, compare.COMMAND])
def test_every_command_with_data_has_it(command: Command) -> None:
    parser = Parser()
    command.add_arguments(parser)
    assert switched(parser.parse_intermixed_args(["x", "--data", "photos", "--skip-bad"])) == {"data.skip_bad": "true"}
    assert switched(parser.parse_intermixed_args(["x", "--data", "photos"])) == {}


def test_it_is_the_setting() -> None:
    given = Namespace(data="photos", skip_bad=True, overrides=["data.size=16"])
    assert overrides_from(given) == {"data.source": "photos", "data.skip_bad": "true", "data.size": "16"}
    assert overrides_from(Namespace(data=None, overrides=[])) == {}


def test_a_comparison_hands_it_on() -> None:
    parser = Parser()
    compare.COMMAND.add_arguments(parser)
    arguments = parser.parse_intermixed_args(["scenes", "--data", "photos", "--skip-bad", "data.size=16"])
    assert compare._split(arguments) == ({"data.size": "16", "data.skip_bad": "true"}, ["scenes"])
