"""Measurements: accuracy with its settings, speed and memory as ratios within one run."""
