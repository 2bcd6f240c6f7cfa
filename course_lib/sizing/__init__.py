"""What both calculators start from: how models are built, what GPUs offer, and which settings a step can have.

Nothing here imports torch: `course_lib.memory` counts bytes and `course_lib.speed` seconds from these numbers alone.
"""

from course_lib.sizing.architectures import ARCHITECTURES, architecture_of
from course_lib.sizing.hardware import CONTEXT_BYTES, GB, GIB, GPU, GPUS, gpu_named
from course_lib.sizing.settings import Settings, SpeedSettings
from course_lib.sizing.shapes import Architecture

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CONTEXT_BYTES",
    "GB",
    "GIB",
    "GPU",
    "GPUS",
    "Settings",
    "SpeedSettings",
    "architecture_of",
    "gpu_named",
]
