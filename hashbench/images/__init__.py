"""Sets of images, decoding, and transforms to tensors."""
