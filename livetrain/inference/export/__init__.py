"""Trained models for other programs: ONNX, torch.export, the layout of the Hugging Face hub."""
