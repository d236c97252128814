"""The audit of labelled clips: copies, one person under two names, labels that contradict, shortcuts."""
