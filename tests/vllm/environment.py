"""The process's environment, set before vLLM is imported."""

import os


def prepare() -> None:
    """The engine in this process, 1 GB of KV cache, no hub, few words."""
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_LOGGING_LEVEL=os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        VLLM_ALLOW_INSECURE_SERIALIZATION="1",  # `LLM.apply_model` sends functions to the workers
        VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
    )
