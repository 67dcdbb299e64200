"""Street scenes drawn from a seed: the embedded data set."""

from segplus.data.synthetic.scenes import CLASS_COLORS, CLASS_NAMES, SyntheticScenes

__all__ = ["CLASS_COLORS", "CLASS_NAMES", "SyntheticScenes"]
