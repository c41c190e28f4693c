"""Data sets, read where they lie: one family per file."""
