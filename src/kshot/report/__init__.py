"""Reports: one HTML file each, which needs nothing beside it.

`labelling`, `evaluation` and `training` each write the report of what their name says; the others are their parts.
"""

from kshot.report.labelling import EMBED_LIMIT, write_report
from kshot.report.rendering import REPORT
from kshot.report.supports import save_supports

__all__ = ["EMBED_LIMIT", "REPORT", "save_supports", "write_report"]
