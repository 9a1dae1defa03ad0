"""The algorithm, in pure torch: it knows tensors and layouts, and no model."""
