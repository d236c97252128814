"""Launching, SLURM jobs, sweeps, cross-validation, the doctor."""
