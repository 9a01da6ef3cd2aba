"""A store of experts at a URL, and the folder on this machine that holds a copy of what has been needed of it.

    metadata.json, wanted-….json, …     as in a folder, each put where it is not there yet
    expert-0003/                        a published folder (`runtime.published`), whose versions are there as a whole or not at all
    expert-0003/claims/                 held while the expert is trained, so that no two machines train it

Readers fetch the headers of an expert's blocks, by their range, and of the blocks those that they read from. A store that somebody
has copied there file by file is read in the same way.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from limbeck.experts.blocks import BLOCK_NAME, POINT_NAME
from limbeck.runtime.claims import Claim
from limbeck.runtime.errors import UsageError
from limbeck.runtime.files import LONGEST_HEADER, read_json, write_bytes, write_json
from limbeck.runtime.fingerprint import fingerprint
from limbeck.runtime.kept import cache_root
from limbeck.runtime.published import Entry, Overtaken, Published, Version
from limbeck.runtime.remote import Remote
from limbeck.runtime.sealed import FileKind

COPY, NOTED = FileKind("copy of an expert"), ".copied.json"
METADATA = "metadata.json"


@dataclass(eq=False)
class Elsewhere:
    """A store at a URL.

    Args:
        remote: where.
        versions: of experts, as they were last looked at.
    """

    remote: Remote
    versions: dict[str, Version] = field(default_factory=dict)

    @staticmethod
    def at(key: str, url: str) -> "Elsewhere":
        """The store at that URL, what it says of itself fetched."""
        found = Elsewhere(Remote(key, url))
        found.open()
        return found

    @property
    def folder(self) -> Path:
        """The copy."""
        return cache_root() / "stores" / fingerprint(self.remote.url) / self.remote.name

    def open(self) -> None:
        """Fetch what the store says of itself; a copy of another store that was there goes."""
        names = [name for name in self.remote.names() if name.endswith(".json")]
        held = {name: (self.remote / name).read() for name in names}
        mine = self.folder / METADATA
        if mine.exists() and held.get(METADATA) != mine.read_bytes():
            rmtree(self.folder)
        for name, content in held.items():
            write_bytes(self.folder / name, content)

    def put(self, name: str) -> None:
        """Have a file that the copy holds at the URL, too; what is there already takes its place here."""
        place = self.remote / name
        if not place.put_new((self.folder / name).read_bytes()):
            write_bytes(self.folder / name, place.read())

    def experts(self) -> list[int]:
        """The experts of which something may be there."""
        names = [name.removeprefix("expert-") for name in self.remote.names() if name.startswith("expert-")]
        return sorted(int(name) for name in names if name.isdigit())

    def look(self, folder: Path) -> bool:
        """Have the headers of an expert's blocks here, as they are there now; whether they have changed.

        What was trained here and not published stays, unless another machine has published since.
        """
        now, (number, held) = self._published(folder).newest(), self._noted(folder)
        self.versions[folder.name] = now
        wanted = {name: entry for name, entry in now.files.items() if BLOCK_NAME.fullmatch(name) or POINT_NAME.fullmatch(name)}
        blocks = [folder / name for name in wanted if BLOCK_NAME.fullmatch(name)]
        if (number, held) == (now.number, wanted) and all(path.exists() for path in blocks):
            return False
        for path in folder.glob("[es]*.safetensors"):
            if held.get(path.name) != wanted.get(path.name) or path.name not in wanted:
                path.unlink()
        for name, entry in now.files.items():
            if BLOCK_NAME.fullmatch(name) and not (folder / name).exists():
                write_bytes(folder / name, self._header(folder, entry))
            elif name not in wanted and "/" not in name:
                self._published(folder).fetch(entry, folder / name)
        write_json(folder / NOTED, {"number": now.number, "files": {name: list(entry) for name, entry in wanted.items()}}, COPY)
        return True

    def whole(self, path: Path) -> None:
        """Have all of a block here of which the header is."""
        entry = self.versions.get(path.parent.name, Version()).files.get(path.name)
        if entry is not None and path.stat().st_size < entry.size:
            self._published(path.parent).fetch(entry, path)

    def complete(self, folder: Path) -> None:
        """Have all of an expert here, also what its training goes on from."""
        self.look(folder)
        for name, entry in self.versions[folder.name].files.items():
            path = folder / name
            if "/" not in name and not (path.exists() and path.stat().st_size == entry.size):
                self._published(folder).fetch(entry, path)

    def publish(self, folder: Path) -> bool:
        """Have what was trained here at the URL, too; False where another machine was faster, whose training takes its place."""
        before = self.versions.get(folder.name, Version())
        if not any(folder.glob("[es]*.safetensors")):
            return True
        here = {path.name for path in folder.glob("[es]*.safetensors")}
        stubs = {
            name: entry for name, entry in before.files.items() if name in here and (folder / name).stat().st_size < entry.size
        }
        try:
            now = self._published(folder).publish(folder, before, stubs, skip=stubs)
        except Overtaken:
            self.look(folder)
            return False
        self.versions[folder.name] = now
        wanted = {name: entry for name, entry in now.files.items() if name in here}
        write_json(folder / NOTED, {"number": now.number, "files": {name: list(entry) for name, entry in wanted.items()}}, COPY)
        return True

    def claim(self, folder: Path) -> Claim:
        """Held by whoever trains an expert, on whatever machine."""
        return Claim(self.remote / folder.name, folder)

    def size(self) -> int:
        """Bytes of all blocks that were looked at."""
        return sum(entry.size for version in self.versions.values() for entry in version.files.values())

    def _published(self, folder: Path) -> Published:
        return Published(self.remote / folder.name)

    def _header(self, folder: Path, entry: Entry) -> bytes:
        place = self.remote / folder.name / entry.at
        length = int.from_bytes(place.read(0, 8), "little")
        if not 2 <= length <= min(entry.size - 8, LONGEST_HEADER):
            raise UsageError(f"{self.remote.key}: {place.url!r} is no file of tensors")
        return length.to_bytes(8, "little") + place.read(8, 8 + length)

    def _noted(self, folder: Path) -> tuple[int | None, dict[str, Entry]]:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            held = read_json(folder / NOTED, COPY)
            return int(held["number"]), {name: Entry(*entry) for name, entry in held["files"].items()}
        return None, {}
