"""What a run leaves behind: one row of named metrics every few steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class History:
    """Rows of metrics, named as TRL names them; `interrupted` tells whether the run was stopped by hand."""

    rows: list[dict[str, float]] = field(default_factory=list)
    interrupted: bool = False

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame indexed by optimiser step."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("step") if self.rows else pd.DataFrame()

    def _repr_html_(self) -> str:
        return self.to_pandas().tail(5).to_html(float_format="%.3f")
