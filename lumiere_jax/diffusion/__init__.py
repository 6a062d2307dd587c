"""The mathematics of diffusion: schedules, losses, guidance and samplers."""
