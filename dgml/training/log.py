"""The log of a run."""

import csv
import io
from pathlib import Path
from typing import Any

from dgml.files import atomic_write


def log_line(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a CSV file, in place of those of this step and later ones, which a killed run may have left."""
    lines = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if int(line["step"]) < row["step"]]
    lines.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, row, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write(path, text.getvalue().encode())
