"""The page of a `Collection`: one file that needs nothing else."""

from pathlib import Path

from limbeck.report.collection import Collection


def render(shown: Collection) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    loader = FileSystemLoader([here / "templates", here])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("several.html.j2").render(shown=shown)
    return page.encode(errors="backslashreplace").decode()  # a name may be no Unicode text
