"""What became of answers: who was answered by which model, what people said of it, and what follows from that."""

from typing import Literal

Arm = Literal["champion", "challenger"]
"""Whether the model for everyone answered, or the one that is tried on a share of visitors."""
Outcome = Literal["accepted", "corrected", "converted"]
"""What became of an answer."""
