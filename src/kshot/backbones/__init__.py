"""Frozen encoders behind one protocol: one loader per file."""
