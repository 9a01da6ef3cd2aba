"""Figures as files: their widths, letters, fonts and words, the same bytes every time."""

import io
import re
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from limbeck import UsageError
from limbeck.figures import (
    COLUMN,
    PAGE,
    Exhibit,
    Strip,
    area_distribution,
    confusion_map,
    gradient_curves,
    image_grid,
    loss_curve,
    save,
    write_exhibits,
)
from limbeck.figures.paper import DPI
from limbeck.figures.style import BLUE, MARK, POINTS, TEXT, inline_svg

ROWS = [{"iteration": k, "loss": 0.9**k, "skipped": k == 3, "grad_norm_images": 0.1 + k, "grad_lr": 0.2} for k in range(8)]


def strips(count: int = 3, images: int = 2) -> list[Strip]:
    random = np.random.default_rng(0)
    return [Strip(f"class {k}", random.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)) for k in range(count)]


def inches_of(path: Path) -> tuple[float, float]:
    """Width and height of what a file shows."""
    content = path.read_bytes()
    if path.suffix == ".png":
        width, height = Image.open(io.BytesIO(content)).size
        return width / DPI, height / DPI
    found = re.search(
        rb'width="([\d.]+)pt" height="([\d.]+)pt"' if path.suffix == ".svg" else rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content
    )
    assert found is not None
    return float(found[1]) / 72, float(found[2]) / 72


@pytest.mark.parametrize("width", [COLUMN, PAGE, 5.5])
def test_files_are_as_wide_as_asked_for(tmp_path: Path, width: float) -> None:
    paths = save(loss_curve(ROWS), tmp_path / "loss", width=width)
    assert [path.name for path in paths] == ["loss.svg", "loss.pdf", "loss.png"]
    height = 2.9 * POINTS / TEXT
    for path in paths:
        assert inches_of(path) == pytest.approx((width, height), abs=1.01 / DPI)


def test_a_grid_keeps_its_shape_and_is_never_enlarged(tmp_path: Path) -> None:
    few, many = image_grid(strips(1)), image_grid(strips(10, 10))
    scale = POINTS / TEXT
    (path,) = save(few, tmp_path / "few.pdf", width=PAGE)
    assert inches_of(path) == pytest.approx(tuple(few.get_size_inches() * scale), rel=1e-3)
    (path,) = save(many, tmp_path / "many.pdf", width=PAGE)
    wide, high = many.get_size_inches()
    assert inches_of(path) == pytest.approx((wide * scale, high * scale), rel=1e-3) and wide * scale <= PAGE
    (path,) = save(many, tmp_path / "narrow.svg", width=2.0)
    assert inches_of(path) == pytest.approx((2.0, 2.0 * high / wide), rel=1e-3)


def words_of(figure: Figure) -> dict[str, float]:
    """Words and how large they are."""
    return {one.get_text(): one.get_fontsize() for one in figure.findobj(Text) if one.get_text()}


def test_letters_are_of_one_size_and_the_figure_is_as_before(tmp_path: Path) -> None:
    figure = gradient_curves(ROWS)
    figure.axes[0].set_xticks([0, 4], ["none", "four"], fontsize=TEXT - 1)
    words = words_of(figure)
    looks = [(line.get_linewidth(), line.get_markersize(), to_hex(line.get_color())) for line in figure.axes[0].get_lines()]
    (path,) = save(figure, tmp_path / "a.pdf")
    sizes = {round(float(found), 2) for found in re.findall(r"/F\d+ ([\d.]+) Tf", "".join(streams(path)))}
    assert sizes == {POINTS, round((TEXT - 1) * POINTS / TEXT, 2)}
    assert figure.get_size_inches().tolist() == [5.4, 2.9]
    after = words_of(figure)
    assert after["four"] == TEXT - 1 and after["images X"] == after["0.1"] == TEXT
    assert {word: after[word] for word in words} == words
    assert looks == [(line.get_linewidth(), line.get_markersize(), to_hex(line.get_color())) for line in figure.axes[0].get_lines()]


def streams(path: Path) -> list[str]:
    """The drawing commands of a PDF file."""
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), flags=re.DOTALL):
        try:
            found.append(zlib.decompress(part).decode("latin-1"))
        except zlib.error:
            continue
    return [text for text in found if " Tf" in text]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("images X", "labels Y", "step size η"), 1),
        (("activation ≥ 0.3", "activation ≥ 0.5", "activation ≥ 0.7"), 2),
        (("a very long name of a series", "another very long name of one", "and the third of them, as long"), 3),
    ],
)
def test_a_key_is_no_wider_than_the_column(tmp_path: Path, names: tuple[str, ...], rows: int) -> None:
    figure = area_distribution({name: np.array([0.2, 0.5]) for name in names})
    seen = []

    def look(event: object) -> None:
        key, texts = figure.legends[0].get_window_extent(), figure.legends[0].get_texts()
        # Matplotlib measures words a pixel wider or less, from version to version; around them is a margin of several.
        seen.append((key.x0 >= -2 and key.x1 <= figure.bbox.width + 2, len({round(text.get_window_extent().y0) for text in texts})))

    figure.canvas.mpl_connect("draw_event", look)
    save(figure, tmp_path / "a.png", width=COLUMN)
    assert seen[-1] == (True, rows)


def test_words_that_no_font_has_are_spelt_in_files_alone(tmp_path: Path) -> None:
    names = ("\U0010fffd owl", "mole")
    figure = confusion_map(np.eye(2).tolist(), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (path,) = save(figure, tmp_path / "confusion.svg")
    assert f"<!-- {MARK} owl -->" in path.read_text(encoding="utf-8")
    assert names[0] in inline_svg(figure, "confusion", "Confusion")


def test_a_pdf_carries_its_fonts(tmp_path: Path) -> None:
    (path,) = save(gradient_curves(ROWS), tmp_path / "gradients.pdf")
    content = path.read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content  # TrueType, which is type 42, not drawn letters


def test_an_svg_has_outlines_and_the_words_beside_them(tmp_path: Path) -> None:
    (path,) = save(gradient_curves(ROWS), tmp_path / "gradients.svg", title="Norms & sizes")
    text = path.read_text(encoding="utf-8")
    assert "<text" not in text and "font-family" not in text
    for words in ("gradient norm", "iteration", "images X", "step size η"):
        assert f"<!-- {words} -->" in text
    assert "Norms &amp; sizes" in text and BLUE in text and "stroke-dasharray" in text


def test_a_png_lies_on_white_paper(tmp_path: Path) -> None:
    (path,) = save(loss_curve(ROWS), tmp_path / "loss.png")
    image = Image.open(path)
    assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 254, 255)
    assert image.info["dpi"] == pytest.approx((DPI, DPI), rel=1e-3)


def test_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(folder: str) -> dict[str, bytes]:
        made = [loss_curve(ROWS), confusion_map(np.eye(3).tolist(), ["a", "b", "c"]), image_grid(strips())]
        paths = [path for k, figure in enumerate(made) for path in save(figure, tmp_path / folder / f"{k}", title="A title")]
        return {path.name: path.read_bytes() for path in paths}

    first = written("a")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    second = written("b")
    assert first == second and len(first) == 9
    assert not any(word in content for content in first.values() for word in (b"CreationDate", b"matplotlib.org", b"<dc:date>"))


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    figure = loss_curve(ROWS)
    with pytest.raises(UsageError, match=r"formats: 'gif' is not one of svg, pdf, png"):
        save(figure, tmp_path / "a", formats=("svg", "gif"))
    with pytest.raises(UsageError, match=r"width: 0.2 is not from 1 to 40 inches"):
        save(figure, tmp_path / "a", width=0.2)
    with pytest.raises(UsageError, match=r"page: nan is not from 1 to 40 inches"):
        write_exhibits([Exhibit("a", "A", "", figure)], tmp_path / "b", page=float("nan"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"folder: .*file.* is not a folder"):
        write_exhibits([], tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_exhibits_in_a_folder(tmp_path: Path) -> None:
    made = [
        Exhibit("loss", "Loss <b>", "One *sentence*.", loss_curve(ROWS)),
        Exhibit("grid", "G", "", image_grid(strips(9, 9)), wide=True),
    ]
    paths = write_exhibits(made, tmp_path / "new" / "folder", column=3.0, page=5.0, formats=("png",))
    assert [path.name for path in paths] == ["loss.png", "grid.png", "captions.md"]
    assert [round(inches_of(path)[0], 2) for path in paths[:2]] == [3.0, 5.0]
    text = paths[2].read_text(encoding="utf-8")
    assert "**Loss &lt;b&gt;** (`loss`). One \\*sentence\\*." in text
    html = made[0]._repr_html_()
    assert "Loss &lt;b&gt;" in html and "<svg" in html and "<b>Loss <b>" not in html
