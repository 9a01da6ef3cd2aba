"""Changes to files as chance or malice makes them: to their bytes, and to what they say, with their own checksums made anew."""

import gzip
import io
import json
import math
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

DEEP = "[" * 5000
NASTY: list[Any] = [
    *(None, True, -1, 0, 3.5, 1e308, 10**18, 10**30, 2**63, math.nan, math.inf, "", [], {}, [[]], {"a": {"b": []}}),
    *(
        "\x1b[2J\x1b]0;title\x07",
        "\u202egnp.exe",
        "<script>document.title='run'</script>",
        "<img src=x onerror=document.title='run'>",
    ),
    *("../../../../outside", "/dev/zero", "/etc/passwd", "a\0b", "\ud800", "x" * 20_000, "\n---\n", "|*_[x](javascript:y)`"),
    *("evil:run", "os:abort", "antigravity:fly", "hf:evil/set", "evil.yaml", "benchmark:.:x", "{0.__class__}", "{of.x}", "%s%n"),
    *("NaN", "-Infinity", "1e999", "ConvNetD8-w9999", "imagenet:x", 10**9, [10**9, 10**9], [math.nan], "logits", ["\u2028"]),
]


class Changed(NamedTuple):
    """A changed file, and whether nothing but bytes were changed, so that a checksum would tell."""

    content: bytes
    blind: bool


def changed(name: str, content: bytes, draw: random.Random) -> Changed:
    """A file of that name with one or a few changes."""
    ways: dict[str, list[Callable[[bytes, random.Random], bytes]]] = {
        "json": [in_json, in_json, in_text],
        "jsonl": [in_lines, in_text],
        "yaml": [in_yaml, in_yaml, in_text],
        "csv": [in_text],
        "txt": [in_text],
        "safetensors": [in_header],
        "npz": [in_zip],
        "pt": [in_zip],
        "npy": [in_array],
        "tar": [in_tar],
        "gz": [in_gzip],
    }
    own = ways.get(name.rpartition(".")[2], [])
    if own and draw.random() < 0.6:
        return Changed(draw.choice(own)(content, draw), False)
    return Changed(in_bytes(content, draw), True)


def in_bytes(content: bytes, draw: random.Random) -> bytes:
    """A few changes that know nothing of the format."""
    held = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(held) + 1) if draw.random() < 0.6 else draw.randrange(min(len(held), 200) + 1)
        way, size = draw.randrange(9), draw.choice((1, 2, 4, 16, 200))
        if way == 0 and held:
            held[min(at, len(held) - 1)] ^= 1 << draw.randrange(8)
        elif way == 1 and held:
            held[min(at, len(held) - 1)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif way == 2:
            del held[at:]
        elif way == 3:
            del held[at : at + size]
        elif way == 4:
            held[at:at] = held[at : at + size]
        elif way == 5:
            held[at:at] = draw.randbytes(size)
        elif way == 6:
            held[at : at + size] = bytes(min(size, max(0, len(held) - at)))
        elif way == 7:
            held[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\x10"))
        else:
            held += draw.randbytes(size)
    return bytes(held)


def in_text(content: bytes, draw: random.Random) -> bytes:
    """A piece of text that is none, or another, somewhere."""
    text = content.decode(errors="replace")
    at = draw.randrange(len(text) + 1)
    pieces = (DEEP, "{" * 3000, '{"a":' * 3000, "- " * 2000, "9" * 5000, "\ufeff", "\x1b[2J", "\0", '"', "'", "\n\n", "\t", ",,,,")
    more = ("&a [*a]", "*a", "!!python/object/apply:os.system [x]", "!!int x", "NaN", "-1", "1e999", "/dev/zero", "../../x.png")
    cut = draw.choice((0, 0, 1, 5, 50))
    return (text[:at] + draw.choice(pieces + more) + text[at + cut :]).encode(errors="surrogatepass")


def in_value(value: Any, draw: random.Random) -> Any:
    """A value of JSON with something else in one place."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.15:
        return draw.choice(NASTY)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    held: Any = dict(value) if isinstance(value, dict) else list(value)
    way = draw.random()
    if way < 0.1:
        del held[key]
    elif way < 0.15 and isinstance(held, dict):
        held[str(draw.choice(NASTY))] = held.pop(key)
    elif way < 0.2:
        held[key] = value
    elif way < 0.25 and isinstance(held, list):
        held *= 3
    else:
        held[key] = in_value(held[key], draw)
    return held


def in_json(content: bytes, draw: random.Random) -> bytes:
    """Another value in a file of JSON."""
    return json.dumps(in_value(unsealed(json.loads(content), draw), draw)).encode()


def unsealed(value: Any, draw: random.Random) -> Any:
    """Mostly without the checksum that a file of ours has of itself, as whoever alters one on purpose would have it."""
    if isinstance(value, dict) and {"limbeck", "checksum"} <= value.keys() and draw.random() < 0.8:
        return {key: one for key, one in value.items() if key not in ("limbeck", "checksum")}
    return value


def in_lines(content: bytes, draw: random.Random) -> bytes:
    """Another value in a line of JSON."""
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = in_json(lines[at], draw)
    return b"\n".join(lines) + b"\n"


def in_yaml(content: bytes, draw: random.Random) -> bytes:
    """Another value in a file of YAML."""
    text = yaml.safe_dump(in_value(yaml.safe_load(content), draw), allow_unicode=False)
    return text.encode(errors="replace")


def in_header(content: bytes, draw: random.Random) -> bytes:
    """Another value in the header of a file of tensors, or another length of it."""
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.2:
        return draw.choice((2**63 - 1, 2**40, length * 2, length - 1, 0, len(content))).to_bytes(8, "little") + content[8:]
    header = json.loads(content[8 : 8 + length])
    inner = header["__metadata__"] = unsealed(header.get("__metadata__", {}), draw)
    texts = [key for key, text in inner.items() if text[:1] in "{["]
    if texts and draw.random() < 0.6:  # what is JSON within JSON
        key = draw.choice(texts)
        inner[key] = draw.choice((DEEP, in_json(inner[key].encode(), draw).decode()))
    else:
        header = in_value(header, draw)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def in_zip(content: bytes, draw: random.Random) -> bytes:
    """Another member of an archive, with the checksum that it has then; one too many, one too few, or another name."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except zipfile.BadZipFile:
        return in_bytes(content, draw)
    at, way = draw.randrange(len(members)), draw.random()
    name, held = members[at]
    if way < 0.08:
        del members[at]
    elif way < 0.16:
        members[at] = (draw.choice(("../x.npy", "/x.npy", "a\0b", "x" * 300, "labels.npy", "data.pkl")), held)
    elif way < 0.2:
        members.append((name, held))
    elif name.endswith(".npy"):
        members[at] = (name, in_array(held, draw))
    else:
        members[at] = (name, in_bytes(held, draw))
    kind = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if content[8:10] == b"\0\0" and b"data.pkl" in content[:200]:
        kind = zipfile.ZIP_STORED  # torch takes no others
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of a name that comes twice
        for name, held in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "?")), held, kind)
    return made.getvalue()


def in_array(content: bytes, draw: random.Random) -> bytes:
    """Another header of an .npy file, or other bytes behind it."""
    start, _, rest = content.partition(b"\n")
    words = (b"(3,", b"(1000000000,", b"(-1,", b"(99999999999999999999,", b"((((", b"'|O'", b"'<U0'", b"'<f8'", b"True", b"[" * 300)
    places = [at for at in range(10, len(start)) if start[at : at + 1] in b"('FT<|"]
    if not places or draw.random() < 0.4:
        return start + b"\n" + in_bytes(rest, draw)
    at = draw.choice(places)
    text = (start[10:at] + draw.choice(words) + start[at + draw.choice((0, 1, 4)) :]).rstrip()
    text += b" " * (-(len(text) + 11) % 64)
    return start[:8] + (len(text) + 1).to_bytes(2, "little") + text + b"\n" + rest


def in_tar(content: bytes, draw: random.Random) -> bytes:
    """Other fields in a header of a tar archive, with the checksum that it has then."""
    held = bytearray(content)
    blocks = [at for at in range(0, len(held) - 511, 512) if held[at + 257 : at + 262] == b"ustar"]
    if not blocks:
        return in_bytes(content, draw)
    at = draw.choice(blocks)
    fields = {
        (0, 100): b"\xff\xfe.png",
        (124, 12): b"77777777777\0",
        (156, 1): b"L",
        (100, 8): b"\xff" * 8,
        (345, 155): b"../../..",
    }
    more = {(0, 30): b"../../../outside.png\0", (124, 8): b"\x80\xff\xff\xff\xff\xff\xff\xff", (156, 2): b"x\0", (0, 5): b"0000."}
    (start, size), value = draw.choice([*fields.items(), *more.items()])
    if draw.random() < 0.4:
        value = draw.randbytes(min(size, 4))
    held[at + start : at + start + min(len(value), size)] = value[:size]
    held[at + 148 : at + 156] = b" " * 8
    held[at + 148 : at + 156] = b"%06o\0 " % sum(held[at : at + 512])
    return bytes(held)


def in_gzip(content: bytes, draw: random.Random) -> bytes:
    """Another content, compressed anew."""
    inside = gzip.decompress(content)
    return gzip.compress(in_tar(inside, draw) if inside[257:262] == b"ustar" else in_bytes(inside, draw), 1)


def tar(members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return made.getvalue()
