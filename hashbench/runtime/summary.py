"""Objects that show a summary: one line in Python, a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping

from hashbench.errors import printable


class Summarized:
    """Base class of objects with a summary, which `repr` shows as one line and a notebook as a table."""

    def _summary(self) -> Mapping[str, object]:
        """Return what to show, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={value}" for name, value in self._summary().items())
        return printable(f"{type(self).__name__}({parts})")

    def _repr_html_(self) -> str:
        """Return the table for a notebook; all text is escaped."""
        rows = "".join(
            f"<tr><th>{html.escape(printable(name))}</th><td>{html.escape(printable(str(value)))}</td></tr>"
            for name, value in self._summary().items()
        )
        return f"<table>{rows}</table>"
