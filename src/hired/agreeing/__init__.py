"""How well answers under a budget agree with the untouched model's: `hired.agreement`, and what ``hired tune`` runs.

Importing this module loads nothing heavy; the measurement is in `hired.agreeing.run`.
"""

from hired.agreeing.samples import QUESTIONS, Sample
from hired.agreeing.settings import BUDGETS, MEASURES, Settings

__all__ = ["BUDGETS", "MEASURES", "QUESTIONS", "Sample", "Settings"]
