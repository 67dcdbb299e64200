"""Files as pixels: images and masks of every format, whole or a rectangle of them."""
