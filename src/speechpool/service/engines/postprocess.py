"""Volume, and a limiter that looks at one sample at a time: the size of the windows does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["to_int16"]

_KNEE: Final = 0.8


def to_int16(samples: NDArray[np.float32], *, gain: float) -> NDArray[np.int16]:
    """Amplify, bend what exceeds 0.8 of full scale so that nothing clips, and round to 16 bits."""
    loud = samples * np.float32(gain)
    size = np.abs(loud)
    over = size > _KNEE
    if over.any():
        bent = _KNEE + (1 - _KNEE) * np.tanh((size[over] - _KNEE) / (1 - _KNEE))
        loud[over] = np.copysign(bent, loud[over])
    rounded: NDArray[np.int16] = np.rint(loud * 32767.0).astype(np.int16)
    return rounded
