"""Whether a store is intact: every file as it was written, every number finite, every epoch there that was asked for."""

from collections.abc import Sequence
from pathlib import Path

from limbeck.experts.blocks import BLOCK_NAME, POINT_NAME, problems_of
from limbeck.experts.coding import CODINGS
from limbeck.experts.epochs import text_of
from limbeck.experts.files import Shelf
from limbeck.experts.fill import Want
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime.errors import UsageError
from limbeck.runtime.progress import NoProgress, Progress


def verify(store: TrajectoryStore, wants: Sequence[Want] | None = None, progress: Progress | None = None) -> list[str]:
    """Read all of a store.

    Args:
        store: to check.
        wants: what it must hold; None takes what those asked for who filled it.
        progress: where to report.

    Returns:
        A line for each thing that is broken or missing; nothing where all is well.
    """
    found: list[str] = []
    files = [path for path in sorted(store.path.glob("expert-*/*.safetensors")) if _ours(path)]
    broken: set[int] = set()
    with (progress or NoProgress()).stage("verify", len(files)) as stage:
        for path in files:
            problems = _problems(store, path)
            found += [f"{path.relative_to(store.path)}: {problem}" for problem in problems]
            broken |= {int(path.parent.name.removeprefix("expert-"))} if problems else set()
            stage.advance()
    for expert in sorted({*store.experts} - broken):
        found += _gaps(store.shelf(expert))
    wants = store.wanted() if wants is None else wants
    for expert in range(max((want.num_experts for want in wants), default=0)):
        if expert not in broken:
            lacking = sorted({epoch for want in wants for epoch in store.shelf(expert).missing(want.of(expert), want.coding)})
            found += [f"expert-{expert:04d}: epochs {text_of(lacking)} are missing"] if lacking else []
    return found if found or store.experts else ["it holds no expert"]


def _ours(path: Path) -> bool:
    ours = BLOCK_NAME.fullmatch(path.name) or POINT_NAME.fullmatch(path.name)
    return bool(ours) and path.parent.name.removeprefix("expert-").isdigit()


def _problems(store: TrajectoryStore, path: Path) -> list[str]:
    problems = problems_of(path)
    if not path.exists():
        return []  # whoever fills the store has removed it
    if problems or POINT_NAME.fullmatch(path.name):
        return problems
    shelf = store.shelf(int(path.parent.name.removeprefix("expert-")))
    block = next((block for block in shelf.blocks if block.path == path), None)
    if block is None:
        return []  # it came since
    try:
        thetas = [block.read(epoch) for epoch in (block.epochs if block.header["coding"] in CODINGS else [])]
    except (UsageError, OSError) as error:
        return [str(error)]
    sizes = {len(theta) for theta in thetas} - {store.num_parameters}
    infinite = [epoch for epoch, theta in zip(block.epochs, thetas, strict=True) if not bool(theta.isfinite().all())]
    said = [f"it has {size} parameters, not {store.num_parameters}" for size in sizes]
    return said + ([f"epochs {text_of(infinite)} are not finite"] if infinite else [])


def _gaps(shelf: Shelf) -> list[str]:
    """Blocks that come from another training than the epochs before them."""
    serving = [block for block in shelf.blocks if any(shelf.find(epoch) is block for epoch in block.epochs)]
    return [
        f"{block.path.parent.name}/{block.path.name}: it does not go on where epoch {block.first - 1} ends"
        for block in serving
        if not shelf.continues(block)
    ]
