"""A check-up of a training job before it starts: what would waste the run, with what helps."""
