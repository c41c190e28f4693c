"""The report of an output folder: one HTML file that needs nothing beside it."""

from kshot.report.page import EMBED_LIMIT, REPORT, write_report
from kshot.report.supports import save_supports

__all__ = ["EMBED_LIMIT", "REPORT", "save_supports", "write_report"]
