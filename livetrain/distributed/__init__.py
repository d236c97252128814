"""Collectives, FSDP2, preemption, the watchdog, advice when memory runs out."""
