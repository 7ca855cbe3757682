"""What MLflow runs when somebody loads a registered sicot model as a pyfunc."""

from mlflow.models import set_model

from sicot.pyfunc import Recognizer

set_model(Recognizer())
