"""`hired bench`: time to first token, tokens per second and memory by budget, beside what the tokens allow."""

from hired.bench.settings import Arm, Settings

__all__ = ["Arm", "Settings"]
