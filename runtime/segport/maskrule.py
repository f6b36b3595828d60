"""What makes a mask of logits in one run: the model's contract decides, unless the user does."""

from dataclasses import dataclass

from segport.contract import ModelContract
from segport.settings import RunSettings


@dataclass(frozen=True, slots=True)
class MaskRule:
    """`threshold`: probability from which a pixel is tumour. `smallest_component`: as in the contract, 0 for none."""

    threshold: float
    smallest_component: float

    @classmethod
    def of(cls, settings: RunSettings, contract: ModelContract) -> "MaskRule":
        """Return the rule of a run."""
        return cls(
            contract.output.threshold if settings.threshold is None else settings.threshold,
            0.0 if settings.all_components else contract.output.smallest_component,
        )
