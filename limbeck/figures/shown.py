"""A matplotlib figure that shows itself in a notebook, where nobody has imported pyplot."""

import io

from matplotlib import figure


class Figure(figure.Figure):
    """The same as matplotlib's."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120, facecolor="white")
        return buffer.getvalue()
