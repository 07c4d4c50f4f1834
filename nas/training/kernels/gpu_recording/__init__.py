"""Records a model's layers as operations of the GPU's kernel.

``recorder.py`` goes through the layers. What they need is recorded by functions:
``convolutions.py`` (with biases), ``norm.py`` (with dropout), ``plain.py`` (activations,
sums, gates, poolings) and ``optimizer.py`` (the change of the weights). All add to the
list in ``operations.py``.
"""

from nas.training.kernels.gpu_recording.operations import share_evenly
from nas.training.kernels.gpu_recording.recorder import GpuRecorder, can_record

__all__ = ["GpuRecorder", "can_record", "share_evenly"]
