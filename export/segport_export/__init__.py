"""seg-export: a checkpoint in, an .onnx out that is proven to give the same masks."""
