"""Common GPUs: memory, peak arithmetic, bandwidth and links."""

from dataclasses import dataclass

GIB = 2**30
GB = 10**9


@dataclass(frozen=True)
class GPU:
    """Bytes, FLOP/s and bytes a second that one GPU offers at best."""

    memory: float  # that PyTorch finds (`total_memory`), a little under the number in the name
    bf16: float  # FLOP/s of dense matrix products accumulated in fp32; fp16 where there is no bf16 (T4, V100)
    fp32: float  # FLOP/s without TF32, which PyTorch leaves off
    bandwidth: float  # of its own memory
    link: float  # to the GPUs of its node, in one direction
    network: float  # its share of the node's network, in one direction


def _gpu(gib: float, bf16: float, fp32: float, bandwidth: float, link: float, network: float) -> GPU:
    return GPU(gib * GIB, bf16 * 1e12, fp32 * 1e12, bandwidth * GB, link * GB, network * GB)


# GiB, TFLOP/s, TFLOP/s, then GB/s. From the vendors' datasheets and architecture papers, without sparsity, of the SXM
# (OAM) forms. Links are NVLink or Infinity Fabric at half the two-way figure, else PCIe x16. The network is that of
# a node of 8: DGX-1, DGX A100, H100, H200 and B200, AWS g4dn, g5, g6 and g6e; 10 Gb/s Ethernet for GeForce.
GPUS = {
    "RTX-3060-12GB": _gpu(11.76, 25.6, 12.7, 360, 32, 1.25),
    "T4-16GB": _gpu(14.74, 65, 8.1, 320, 16, 1.56),
    "V100-16GB": _gpu(15.77, 125, 15.7, 900, 150, 6.25),
    "A10G-24GB": _gpu(22.19, 70, 35, 600, 32, 1.56),
    "L4-24GB": _gpu(22.16, 121, 30.3, 300, 32, 1.56),
    "RTX-3090-24GB": _gpu(23.69, 71, 35.6, 936, 32, 1.25),
    "RTX-4090-24GB": _gpu(23.64, 165.2, 82.6, 1008, 32, 1.25),
    "RTX-5090-32GB": _gpu(31.36, 209.5, 104.8, 1792, 64, 1.25),
    "V100-32GB": _gpu(31.74, 125, 15.7, 900, 150, 6.25),
    "A100-40GB": _gpu(39.39, 312, 19.5, 1555, 300, 25),
    "L40S-48GB": _gpu(44.40, 362, 91.6, 864, 32, 6.25),
    "A100-80GB": _gpu(79.15, 312, 19.5, 2039, 300, 25),
    "H100-80GB": _gpu(79.11, 989.4, 66.9, 3350, 450, 50),
    "H200-141GB": _gpu(139.72, 989.4, 66.9, 4800, 450, 50),
    "B200-180GB": _gpu(178.35, 2250, 75, 7700, 900, 50),
    "MI300X-192GB": _gpu(191.98, 1307.4, 163.4, 5300, 448, 50),
}
CONTEXT_BYTES = 0.8 * GB  # allowance: CUDA context, cuBLAS workspaces, NCCL
FRAGMENTATION = 0.05  # allowance: blocks the allocator holds free, a share of what comes and goes


def gpu_named(name: str) -> GPU:
    """A GPU of the table, its name in any case.

    Raises:
        ValueError: for a name that is not in `GPUS`.
    """
    found = {known.lower(): gpu for known, gpu in GPUS.items()}
    if str(name).lower() not in found:
        raise ValueError(f"no GPU {name!r} in the table; it has {', '.join(GPUS)}")
    return found[name.lower()]


def memory_of(gpu: str) -> float:
    """Bytes of a GPU by name; a ValueError names those that there are."""
    return gpu_named(gpu).memory
