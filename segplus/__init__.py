"""segplus: fine-tune semantic-segmentation models on your own masks."""
