"""Files as pixels: images and masks of every kind, whole or a rectangle of them."""
