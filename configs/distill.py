"""Distillation: a trained stage that samples in 4 steps without guidance (docs/distillation.md).

    python -m lumiere_jax.main --config=configs/distill.py:from=runs/stunet --workdir=runs/stunet_4
    python -m lumiere_jax.sample --base=runs/stunet_4 --prompt="..." --output=x.mp4

The teacher is a checkpoint of the stage `stunet`, `stunet_conditional` or `ssr`, which says all
that is not set here: sizes, schedule, text, data, batch, optimizer and which parameters train. The
student is a checkpoint of the same stage. `--config.distillation.method=parallel`, with
`--config.distillation.steps='(4,)'`, takes one round in place of several, see the page. The
defaults here, chosen and not searched for:
`train.num_steps` of each round are a quarter of the teacher's, at a fifth of its learning rate,
which falls to zero.
"""

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.checkpoints.inheritance import source_of
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training.distill import check_teacher


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the variant "from=WORKDIR"; all sizes are those of that teacher."""
    source = source_of(variant)
    if not source:
        raise UserError(
            f"configs/distill.py has no variant {variant or ''!r}: it takes its sizes from a "
            "teacher. Give --config=configs/distill.py:from=WORKDIR."
        )
    config = checkpoint.load_config(source)
    check_teacher(config, source)
    config.init_from = source
    config.distillation = ConfigDict(
        {
            "method": "progressive",  # or "parallel", with steps=(4,)
            "start_steps": 32,  # of the first teacher
            "steps": (16, 8, 4),  # of the student, after each round
            "guidance_scale": config.sampling.guidance_scale,  # of the first teacher
            "weighting": "truncated_snr",  # or "plain"
        }
    )
    if config.diffusion.prediction == "epsilon":  # near pure noise, x0 says nothing of it
        config.distillation.weighting = "plain"
    if config.diffusion.schedule == "discrete":  # with "leading", fewer steps begin elsewhere
        config.sampling.timestep_spacing = "trailing"
    if config.sampling.last_log_snr:  # a student's even steps in log-SNR are none of its teacher's
        config.sampling.update({"last_log_snr": 0.0, "time_power": 2.0})
    config.diffusion.text_dropout = 0.0  # no guidance, so no need to go without text
    config.data.allow_other = False
    _set_rounds(config)
    return config


def _set_rounds(config: ConfigDict) -> None:
    """A round is shorter than the teacher's training, and its rate lower."""
    train, optimizer = config.train, config.optimizer
    train.num_steps = max(train.num_steps // 4, 1)
    for name in ("checkpoint_every", "eval_every", "sample_every"):
        train[name] = min(train[name], max(train.num_steps // 2, 1))
    optimizer.learning_rate *= 0.2
    optimizer.warmup_steps = min(optimizer.warmup_steps, train.num_steps // 10)
    optimizer.decay = "cosine"
