"""Where images and masks lie: one module a layout, and what finds, pairs and names them."""
