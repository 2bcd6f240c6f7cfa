"""How much memory training takes: arithmetic about models, no tensors. Stands beside the flow and needs none of it."""

from course_lib.memory.architecture import ARCHITECTURES, Architecture, architecture_of
from course_lib.memory.estimate import MemoryEstimate, estimate_memory
from course_lib.memory.gpus import GB, GIB, GPUS

__all__ = ["ARCHITECTURES", "Architecture", "GB", "GIB", "GPUS", "MemoryEstimate", "architecture_of", "estimate_memory"]
