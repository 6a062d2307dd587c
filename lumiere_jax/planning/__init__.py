"""What a training or sampling step needs on a TPU slice, by the TPU's own compiler, without one."""
