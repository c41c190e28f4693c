"""The main job on real photographs: each case is one run, and one page shows them all."""

from kshot.demo.cases import CASES, Case, CaseResult
from kshot.demo.run import Demo, run_demo

__all__ = ["CASES", "Case", "CaseResult", "Demo", "run_demo"]
