"""From clips and captions to training batches."""
