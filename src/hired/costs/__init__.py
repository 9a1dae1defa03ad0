"""What a model costs, worked out from its configuration: shapes, FLOPs, memory, time. No weights are needed.

A shape is an exact architecture with a name, so that speed and memory can be planned and measured with no download.
"""
