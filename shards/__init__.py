"""Videos and labels to WebDataset shards with an index."""
