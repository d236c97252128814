"""The files of a shard folder, and what is known of a video before it is stored."""
