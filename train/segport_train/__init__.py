"""seg-train: slices and masks in, a DeepLabV3-ResNet50 checkpoint with its contract out."""
