"""kshot's default method."""

from kshot.methods.auto.task import Settings, Task

__all__ = ["Settings", "Task"]
