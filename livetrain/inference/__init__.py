"""What is done with a trained model: packages, prediction, ensembles, soups, ablation, saliency."""
