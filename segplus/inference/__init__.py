"""From a saved model and images to label maps and scores: protocols, windows, the loop of an evaluation."""

from segplus.inference.predictor import Predictor
from segplus.inference.scoring import evaluate_split

__all__ = ["Predictor", "evaluate_split"]
