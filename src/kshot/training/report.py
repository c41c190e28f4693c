"""report.html of a training run: how the losses fell, with what settings, which state is the best, and why it ended."""
from pathlib import Path
def write_report(out: Path) -> Path:
    raise NotImplementedError
