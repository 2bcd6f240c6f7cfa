"""How many bytes a training step holds on a GPU, counted without running it.

An estimate is made in four moves. `states` counts the weights, gradients and optimiser state of every model that the
method holds. `layers` and `head` write down the operations of a layer and of a model's end as the PyTorch code runs
them (`attention`, `mlp`, and the `pieces` of both: norms, linear layers wide or quantised, adapters), on a `tape` that
knows what autograd keeps and how high each pass rises. `step` puts the passes of all models in order, phase by phase.
`estimate` reports the largest phase. `tracker` follows a real step, tensor by tensor: the tests hold the estimate
against it.
"""

from course_lib.memory.estimate import MemoryEstimate, estimate_memory

__all__ = ["MemoryEstimate", "estimate_memory"]
