"""From a saved model and pictures to label maps, scores and comparisons."""

from segplus.inference.comparison import compare
from segplus.inference.evaluation import evaluate, evaluate_split
from segplus.inference.prediction import predict
from segplus.inference.predictor import Predictor

__all__ = ["Predictor", "compare", "evaluate", "evaluate_split", "predict"]
