"""Jobs of a cluster: what was submitted, how it goes, how it is cancelled."""
