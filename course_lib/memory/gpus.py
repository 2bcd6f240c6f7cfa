"""Memory of common GPUs, and what a process needs beside its tensors. Stands beside the flow; arithmetic only."""

GIB = 2**30
GB = 10**9

# Bytes that PyTorch finds (`total_memory`), a little under the number in the name.
GPUS = {
    "RTX-3060-12GB": 11.76 * GIB,
    "T4-16GB": 14.74 * GIB,
    "V100-16GB": 15.77 * GIB,
    "A10G-24GB": 22.19 * GIB,
    "L4-24GB": 22.16 * GIB,
    "RTX-3090-24GB": 23.69 * GIB,
    "RTX-4090-24GB": 23.64 * GIB,
    "RTX-5090-32GB": 31.36 * GIB,
    "V100-32GB": 31.74 * GIB,
    "A100-40GB": 39.39 * GIB,
    "L40S-48GB": 44.40 * GIB,
    "A100-80GB": 79.15 * GIB,
    "H100-80GB": 79.11 * GIB,
    "H200-141GB": 139.72 * GIB,
    "B200-180GB": 178.35 * GIB,
    "MI300X-192GB": 191.98 * GIB,
}
CONTEXT_BYTES = 0.8 * GB  # allowance: CUDA context, cuBLAS workspaces, NCCL
FRAGMENTATION = 0.05  # allowance: blocks the allocator holds free, a share of what comes and goes


def memory_of(gpu: str) -> float:
    """Bytes of a GPU by name, in any case.

    Raises:
        ValueError: for a name that is not in `GPUS`.
    """
    found = {name.lower(): size for name, size in GPUS.items()}
    if gpu.lower() not in found:
        raise ValueError(f"no GPU {gpu!r} in the table; it has {', '.join(GPUS)}")
    return found[gpu.lower()]
