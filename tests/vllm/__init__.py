"""Tests of the vLLM plugin; `make test-vllm` runs them in an environment that has vLLM."""
