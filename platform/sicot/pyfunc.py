"""The code that MLflow runs when somebody loads a registered model as a *pyfunc*: a door for other people's tools.

Never imported: :mod:`sicot.registry` stores this file beside the bundle (models-from-code), so nothing is pickled.
"""

import base64
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from sicot.bundle import Bundle, Query


class Recognizer(PythonModel):
    """`predict` takes a DataFrame with the columns image, title and tags, any of which may be missing."""

    def load_context(self, context: Any) -> None:
        """Open the bundle that lies beside this code."""
        self.bundle = Bundle.load(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Five ranked labels with probabilities, whether none is sure enough, and the words with their attention."""
        queries = []
        for row in model_input.to_dict("records"):
            image, title, tags = (row.get(column) for column in ("image", "title", "tags"))
            photo = base64.b64decode(image) if isinstance(image, str) else image
            queries.append(
                Query(
                    image=photo if isinstance(photo, bytes) else None,
                    title=title if isinstance(title, str) else "",
                    tags=tuple(tags) if not _missing(tags) else (),
                )
            )
        answers = self.bundle.predict(queries)
        return pd.DataFrame(
            {
                "labels": [[ranked.label for ranked in answer.ranked] for answer in answers],
                "probabilities": [[ranked.probability for ranked in answer.ranked] for answer in answers],
                "unknown": [answer.unknown for answer in answers],
                "words": [[word.token for word in answer.words] for answer in answers],
                "weights": [[word.weight for word in answer.words] for answer in answers],
            }
        )


def _missing(value: Any) -> bool:
    return value is None or isinstance(value, float)  # pandas puts NaN where a list is missing


set_model(Recognizer())
