"""The state that a run starts from: fresh parameters, with those of the stage before in place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from lumiere_jax.cascade.stage import INPUT_LAYER, OUTPUT_LAYER, Stage
from lumiere_jax.cascade.state import TrainState, create_state
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.checkpoints.inheritance import check_same_network
from lumiere_jax.models.parameters import Params, merge, partition
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import state_shardings, with_shardings
from lumiere_jax.training.step import step_identity


def state_maker(
    stage: Stage, optimizer: optax.GradientTransformation
) -> Callable[[Params], TrainState]:
    """A function from all parameters of a stage to its state at step 0, to be compiled."""
    dtype = jnp.dtype(stage.config.train.frozen_dtype)

    def make(params: Params) -> TrainState:
        trainable, frozen = partition(params, stage.is_trainable)
        trainable = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trainable)
        frozen = jax.tree.map(lambda leaf: leaf.astype(dtype), frozen)
        student = trainable if stage.is_distilled else {}  # it starts as its teacher
        teacher = jax.tree.map(lambda leaf: jnp.copy(leaf.astype(dtype)), student)
        has_powers = stage.config.train.ema_snapshots > 0
        return create_state(trainable, frozen, optimizer, teacher, has_powers)

    return make


def state_shapes(stage: Stage, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes of the state, each with the sharding that it has on the mesh."""
    shapes = jax.eval_shape(state_maker(stage, optimizer), stage.param_shapes)
    return with_shardings(shapes, state_shardings(shapes, mesh))


def initial_state(
    stage: Stage,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    programs: Programs | None = None,
) -> TrainState:
    """The state at step 0, made in the places that it stays in; see `initial_params`.

    The optimizer is that of the stage's config if there are `programs`.
    """
    programs = Programs() if programs is None else programs
    params, make = initial_params(stage, mesh, programs), state_maker(stage, optimizer)
    shardings = state_shardings(jax.eval_shape(make, params), mesh)
    return _run(make, params, shardings, programs, step_identity(stage))


def initial_params(stage: Stage, mesh: Mesh, programs: Programs | None = None) -> Params:
    """Fresh parameters, with those of the stage before in their place, or of a run of this stage.

    Args:
      stage: whose config says what it starts from.
      mesh: that the parameters will be on.
      programs: where what draws them is found, if it was compiled before, and kept.

    Raises:
      UserError: if the checkpoint named by `init_from` is of the wrong stage or does not fit, or
        an inflated stage has none.
    """
    config, expected = stage.config, stage.starts_from
    programs = Programs() if programs is None else programs
    if not config.init_from:
        if expected and not config.allow_untrained_start:
            raise UserError(
                f"stage {stage.name!r} starts from a trained stage {expected!r}: give its workdir "
                "with --config.init_from=WORKDIR (or set --config.allow_untrained_start=True "
                "with --config.train.trainable=all to train everything at once)."
            )
        say("initializing all parameters at random")
        return fresh_params(stage, {}, mesh, programs)
    saved_config, saved, step = checkpoint.load(config.init_from, mesh)
    if saved_config.stage not in (expected, stage.name):
        or_before = f"stage {expected!r}, or " if expected and expected != stage.name else ""
        raise UserError(
            f"init_from={config.init_from} is a checkpoint of stage {saved_config.stage!r}; stage "
            f"{stage.name!r} starts from {or_before}another run of its own stage."
        )
    inherited = checkpoint.INHERITED_FIELDS
    checkpoint.check_same_fields(
        saved_config.to_dict(), config, inherited, config.init_from, "another --config.init_from"
    )
    check_same_network(saved_config, config, config.init_from)
    say(f"initializing from step {step} of {config.init_from}")
    shapes = stage.param_shapes
    if stage.is_conditional:
        saved = with_new_inputs(shapes, saved, mesh, programs)
    if stage.steps_at_once > 1:
        saved = with_more_outputs(stage.steps_at_once, saved, mesh, programs)
    check_fit(shapes, saved, config.init_from)
    return fresh_params(stage, saved, mesh, programs)


def with_new_inputs(shapes: Params, saved: Params, mesh: Mesh, programs: Programs) -> Params:
    """Saved parameters with a kernel of zeros for each input channel that `shapes` has beyond."""
    kernel = saved[INPUT_LAYER]["kernel"]
    missing = shapes[INPUT_LAYER]["kernel"].shape[2] - kernel.shape[2]
    wider = jax.tree.map(lambda x: x, saved)  # the tree, not its arrays, is changed
    if missing > 0:

        def pad(kernel: jax.Array) -> jax.Array:  # float32: it is trained from here on
            kernel = kernel.astype(jnp.float32)
            return jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))

        shardings = state_shardings(jax.eval_shape(pad, kernel), mesh)
        about = f"{missing} input channels more"
        wider[INPUT_LAYER]["kernel"] = _run(pad, kernel, shardings, programs, about)
    return wider


def with_more_outputs(number: int, saved: Params, mesh: Mesh, programs: Programs) -> Params:
    """Saved parameters whose last layer says what it said `number` times, in further channels."""

    def repeat(layer: Params) -> Params:  # float32: it is trained from here on
        return jax.tree.map(
            lambda leaf: jnp.concatenate([leaf.astype(jnp.float32)] * number, axis=-1), layer
        )

    layer = saved[OUTPUT_LAYER]
    shardings = state_shardings(jax.eval_shape(repeat, layer), mesh)
    about = f"{number} times the outputs"
    return {**saved, OUTPUT_LAYER: _run(repeat, layer, shardings, programs, about)}


def fresh_params(stage: Stage, saved: Params, mesh: Mesh, programs: Programs) -> Params:
    """All parameters of a stage: the saved ones, and random ones where there are none."""
    known = flatten_dict(saved)

    def missing(params: Params) -> Params:
        return unflatten_dict({p: x for p, x in flatten_dict(params).items() if p not in known})

    def init(key: jax.Array) -> Params:
        return missing(stage.init_params(key))

    # XLA's own generator: thousands of small draws take long to compile.
    key = jax.random.key(stage.config.seed, impl="rbg")
    shapes = missing(stage.param_shapes)
    about = repr((type(stage), stage.network, shapes))
    return merge(saved, _run(init, key, state_shardings(shapes, mesh), programs, about))


def _run(
    function: Callable[[Any], Any], argument: Any, shardings: Any, programs: Programs, about: str
) -> Any:
    """What a function makes, in its places; it runs once, so on the CPU without optimization."""
    options: Any = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    places = jax.tree.leaves(shardings)
    about += f", to {places} of {[place.mesh.device_ids.tolist() for place in places[:1]]}"
    compiled = programs.get(
        function, (argument,), about, is_used_once=True, out_shardings=shardings,
        compiler_options=options,
    )  # fmt: skip
    return compiled(argument)


def check_fit(shapes: Params, saved: Params, place: str) -> None:
    """Raises a `UserError` if saved parameters, from `place`, are not among those of a network."""
    shapes = flatten_dict(shapes)
    for path, leaf in flatten_dict(saved).items():
        name = "/".join(path)
        if path not in shapes:
            raise UserError(f"{place}: this network has no parameter {name!r}; use equal sizes.")
        if shapes[path].shape != leaf.shape:
            raise UserError(
                f"{place}: parameter {name!r} has shape {leaf.shape}, and this network's "
                f"{shapes[path].shape}; give both stages the same model fields."
            )
