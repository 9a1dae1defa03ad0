"""Exact match beside tokens on `hired.forms`: what ``hired eval`` runs.

Importing this module loads nothing heavy; `evaluate` is in `hired.evaluation.run`, `plot` in
`hired.evaluation.plot`.
"""

from hired.evaluation.settings import CHECKS, METHODS, Settings

__all__ = ["CHECKS", "METHODS", "Settings"]
