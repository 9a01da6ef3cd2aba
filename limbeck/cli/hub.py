"""`limbeck push` and `limbeck pull`: distilled sets on the Hugging Face Hub."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from limbeck.cli.command import Command, Done
from limbeck.cli.evaluate import distilled_folder
from limbeck.cli.output import print_paths

REPO = "OWNER/NAME on the Hub ($HF_ENDPOINT says where another one is)"


def add_push_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", help="a distilled set, or the run folder that holds one")
    parser.add_argument("repo", metavar="REPO", help=f"the repository of a data set, {REPO}; it is made where there is none")
    parser.add_argument("--private", action="store_true", help="make it for its owner alone")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch; it is made where there is none (default: main)")
    licence = "licence of the images, such as cc-by-4.0, for the card (default: what the set says, or unknown)"
    parser.add_argument("--licence", metavar="LICENCE", help=licence)
    parser.add_argument("--replace", action="store_true", help="replace another set, or what else is there")


def push(arguments: Namespace) -> Done:
    from limbeck.runtime.located import here

    folder = distilled_folder(Path(here("set", arguments.set)))

    from limbeck.distilled.hub import push

    how = {name: getattr(arguments, name) for name in ("private", "revision", "licence")}
    return Done({"commit": push(folder, arguments.repo, **how, replace_other=arguments.replace)})


def add_pull_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("repo", metavar="REPO", help=REPO)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="a new or an empty folder (default: NAME, here)")
    parser.add_argument("--revision", metavar="REVISION", help="a branch, a tag or a commit (default: main)")


def pull(arguments: Namespace) -> Done:
    from limbeck.distilled.hub import pull

    folder = arguments.folder or arguments.repo.rpartition("/")[2]
    pull(arguments.repo, folder, revision=arguments.revision)
    return Done({"distilled": folder})


PUSH = Command(
    help="put a distilled set onto the Hugging Face Hub, with its card and for `datasets`",
    add_arguments=add_push_arguments,
    run=push,
    show=print_paths,
    keys={"path": "SET", "set": "SET", "repo": "REPO", "revision": "--revision", "private": "--private"},
    resume=(),
    examples={
        "limbeck push runs/scenes me/scenes-edf": "the set of a run, into a new repository",
        "limbeck push set me/mine --private --licence cc-by-4.0": "for its owner alone",
        "limbeck push set me/mine --replace": "in the place of another one",
    },
)
PULL = Command(
    help="fetch a distilled set from the Hugging Face Hub, the same to the bit",
    add_arguments=add_pull_arguments,
    run=pull,
    show=print_paths,
    keys={"repo": "REPO", "folder": "FOLDER", "revision": "--revision"},
    resume=(),
    examples={
        "limbeck pull me/scenes-edf": "into the folder scenes-edf",
        "limbeck pull me/scenes-edf theirs --revision main": "into another one",
    },
)
