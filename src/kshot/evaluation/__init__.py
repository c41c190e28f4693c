"""The evaluation harness: exact protocols, counts that add, one result."""

from kshot.evaluation.result import Result
from kshot.evaluation.runner import evaluate, load_result

__all__ = ["Result", "evaluate", "load_result"]
