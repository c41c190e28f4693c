"""What the module of a method has to define, checked where it is not kshot's own."""

from dataclasses import is_dataclass
from typing import Any


def problem_of(module: Any, name: str, base_task: type) -> str:
    """What a module lacks to be the method of this name; empty when nothing. base_task: what its Task inherits from."""
    settings, task = getattr(module, "Settings", None), getattr(module, "Task", None)
    if not (isinstance(settings, type) and is_dataclass(settings)):
        return "it defines no dataclass Settings"
    if not (isinstance(task, type) and issubclass(task, base_task)):
        return "it defines no Task that inherits from kshot.methods.base.Task"
    for attribute, expected in (("method", name), ("Settings", settings)):
        if getattr(task, attribute, None) != expected:
            return f"its Task does not say {attribute} = {getattr(expected, '__name__', repr(expected))}"
    if missing := sorted(getattr(task, "__abstractmethods__", ())):
        return f"its Task does not define {', '.join(missing)}"
    try:
        settings()
    except Exception as error:
        return f"its Settings cannot be made without values ({error})"
    return ""
