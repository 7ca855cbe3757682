"""The bundle as an MLflow *pyfunc*: a door for other people's tools. sicot itself never loads one.

Saved as *models-from-code*: the artifact is the bundle (safetensors, JSON, Parquet) beside this library's source;
nothing is pickled.
"""

from __future__ import annotations

import base64
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

if TYPE_CHECKING:
    import pandas as pd

NEEDS = (
    *("mlflow", "torch", "torchvision", "numpy", "pandas", "pyarrow", "pillow", "safetensors"),
    *("jieba", "gensim", "pydantic", "pydantic-settings", "pyyaml"),
)
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.binary, "image", required=False),
            ColSpec(DataType.string, "title", required=False),
            ColSpec(Array(DataType.string), "tags", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Array(DataType.double), "probabilities"),
            ColSpec(Array(DataType.string), "words"),
            ColSpec(Array(DataType.double), "weights"),
        ]
    ),
)


class Recognizer(mlflow.pyfunc.PythonModel):
    """`predict` takes a DataFrame with the columns image, title and tags, any of which may be missing."""

    def load_context(self, context: Any) -> None:
        from sicot.bundle import Bundle

        self.bundle = Bundle.load(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Five ranked labels with probabilities, and the words with their attention, for each row."""
        import pandas as pd

        from sicot.bundle import Query

        def there(value: Any) -> bool:
            return value is not None and not (isinstance(value, float) and value != value)

        queries = []
        for row in model_input.to_dict("records"):
            image = row.get("image") if there(row.get("image")) else None
            queries.append(
                Query(
                    image=base64.b64decode(image) if isinstance(image, str) else image,
                    title=row["title"] if there(row.get("title")) else "",
                    tags=tuple(row["tags"]) if there(row.get("tags")) else (),
                )
            )
        return pd.DataFrame(
            [
                {
                    "labels": [ranked.label for ranked in answer.ranked],
                    "probabilities": [ranked.probability for ranked in answer.ranked],
                    "words": [word.token for word in answer.words],
                    "weights": [word.weight for word in answer.words],
                }
                for answer in self.bundle.predict(queries)
            ]
        )


def save(bundle: str | Path, path: str | Path) -> None:
    """Write the pyfunc of the bundle in a local folder to `path`, which must not exist."""
    package = Path(__file__).parent
    mlflow.pyfunc.save_model(
        path=str(path),
        python_model=str(package / "pyfunc_model.py"),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(package)],
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in NEEDS],
        signature=SIGNATURE,
    )
