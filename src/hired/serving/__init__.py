"""`hired serve`: starts vLLM's own server with a budget, and refuses to start one that would not keep to it."""
