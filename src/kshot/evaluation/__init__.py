"""The evaluation harness: exact protocols, counts that add, one result."""

from kshot.evaluation.films import FilmsResult, evaluate_films
from kshot.evaluation.result import Result
from kshot.evaluation.runner import evaluate, load_result

__all__ = ["FilmsResult", "Result", "evaluate", "evaluate_films", "load_result"]
