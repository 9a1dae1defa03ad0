"""Exact match beside tokens on `hired.forms`: what ``hired eval`` runs.

Importing this module loads nothing heavy; `evaluate` is in `hired.evaluation.run`, `plot` in
`hired.evaluation.plot`.
"""

from hired.evaluation.settings import CHECKS, Settings, all_methods

__all__ = ["CHECKS", "Settings", "all_methods"]
