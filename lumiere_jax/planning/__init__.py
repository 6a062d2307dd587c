"""What a step needs on a TPU slice, by the TPU's own compiler, without one; a check-up of a job."""
