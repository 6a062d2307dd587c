"""What training and inference share of a stage."""
