"""The served families, one file each: vLLM's own class with a budget, and what the plugin must know of it."""
