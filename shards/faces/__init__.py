"""Finding and tracking the face of each clip."""
