"""A frozen T5 encoder, from a folder of Hugging Face, on the devices of this process.

Imagen (arXiv 2205.11487, section 2.1) found the encoder of T5 XXL to be worth more than a larger
diffusion network; Lumiere builds on a text-to-image model of that family.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime import distributed
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import announced
from lumiere_jax.runtime.safetensors_reading import TensorFiles
from lumiere_jax.runtime.sharding import (
    by_clip,
    local_mesh,
    state_shardings,
    use_mesh,
    with_shardings,
)
from lumiere_jax.text import t5_weights, tokenizers
from lumiere_jax.text.encoder import Embeddings, Mask, TextEncoder, check_prompts
from lumiere_jax.text.t5_folder import find_encoder
from lumiere_jax.text.t5_network import Architecture, T5Encoder, read_architecture

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_NO_FOLDER = (
    "the text encoder 't5' needs its weights: give --config.text.folder=DIR (--text_folder=DIR "
    "for a checkpoint) with a T5 v1.1 {size}encoder: config.json, safetensors files and "
    "spiece.model; docs/text_encoders.md says how to lay it out."
)


Tokens = Int32[np.ndarray, "prompts length"]


class T5TextEncoder(TextEncoder):
    """Embeds a prompt as the last layer of T5's encoder.

    Nothing is read before it is needed: `dim` and `max_length` are known without the folder. All
    prompts go through one compiled program of one batch size, so that a prompt's embedding does not
    depend on how many others there are.
    """

    def __init__(
        self, folder: str = "", dim: int = 4096, max_length: int = 128, dtype: str = "bfloat16",
        weights: str = "", lowercase: bool = False, keep_padding: bool = False,
    ) -> None:  # fmt: skip
        """Checks the settings.

        Args:
          folder: with `config.json`, the weights as safetensors, and `spiece.model`; or that of a
            pipeline of diffusers, see `t5_folder`.
          dim: what `config.json` calls `d_model`.
          max_length: tokens of a prompt, the end of text included.
          dtype: of the matrices and their products, "float32" or "bfloat16".
          weights: fingerprint that the weights must have; "" for any.
          lowercase: prompts are put in lower case and lose the spaces around them.
          keep_padding: padding has its embeddings and counts as text, as what DeepFloyd IF is
            trained with; the tokens of the prompt still do not attend to it.
        """
        if dim < 1 or max_length < 1:
            raise UserError(
                f"text.dim={dim} and text.max_length={max_length} must be at least 1; dim is what "
                "the encoder's config.json calls d_model."
            )
        if dtype not in _DTYPES:
            raise UserError(f"text.dtype {dtype!r} is unknown; use one of {list(_DTYPES)}.")
        super().__init__(dim, max_length)
        self.folder = folder
        self._dtype, self._expected_weights = dtype, weights
        self._lowercase, self._keep_padding = lowercase, keep_padding
        self._lock = threading.RLock()
        self._null: tuple[Embeddings, Mask] | None = None

    @property
    def fingerprint(self) -> str:
        """See `TextEncoder`; a `UserError` if the weights are neither here nor known."""
        return (
            f"t5-v1(dim={self.dim}, max_length={self.max_length}, dtype={self._dtype}, "
            f"weights={self.weights}"
            f"{', lowercase' * self._lowercase}{', keep_padding' * self._keep_padding})"
        )

    @property
    def weights(self) -> str:
        """Tells the weights and the tokenizer apart; see `t5_weights.fingerprint`."""
        return self._opened[3] if self.folder else self._expected_weights or self._opened[3]

    def __call__(self, prompts: Sequence[str]) -> tuple[Embeddings, Mask]:
        """See `TextEncoder`.

        The first call reads the weights and compiles. It must not come from inside of a function
        that JAX is tracing; the null text alone, once it was asked for, can be asked for anywhere.
        """
        check_prompts(prompts)
        with self._lock:
            if list(prompts) != [""]:
                tokens, mask = self.tokens(prompts)
                return self.embed(tokens, mask), mask
            if self._null is None:
                tokens, mask = self.tokens(prompts)
                self._null = self.embed(tokens, mask), mask
            embeddings, mask = self._null
            return embeddings.copy(), mask.copy()

    def tokens(self, prompts: Sequence[str]) -> tuple[Tokens, Mask]:
        """Token numbers and their mask: the first half of `__call__`, which needs no device."""
        check_prompts(prompts)
        if self._lowercase:
            prompts = [prompt.lower().strip() for prompt in prompts]
        tokens, mask = tokenizers.encode(self._opened[2], prompts, self.max_length)
        return tokens, np.ones_like(mask) if self._keep_padding else mask

    def embed(self, tokens: Tokens, mask: Mask) -> Embeddings:
        """Embeddings of tokens: the second half of `__call__`."""
        return self.gather(self.start(tokens, mask), len(tokens))

    def start(self, tokens: Tokens, mask: Mask) -> list[jax.Array]:
        """Starts the computation of embeddings, and waits for nothing; see `gather`."""
        if self._keep_padding:
            mask = tokens != tokenizers.PAD  # what tokens may attend to
        with self._lock:
            program, params, batch = self._program
            missing = -len(tokens) % batch
            # Rows that fill up have one token: attention to nothing is not defined.
            filled = np.pad(tokens, ((0, missing), (0, 0)))
            filled_mask = np.pad(mask, ((0, missing), (0, 0)))
            filled_mask[:, 0] = True
            parts = [slice(begin, begin + batch) for begin in range(0, len(filled), batch)]
            return [program(params, filled[part], filled_mask[part]) for part in parts]

    def gather(self, started: list[jax.Array], count: int) -> Embeddings:
        """The first embeddings of what was started, as many as there were tokens."""
        embeddings = np.zeros((count, self.max_length, self.dim), np.float32)
        for index, part in enumerate(started):
            begin = index * len(part)
            embeddings[begin : begin + len(part)] = np.asarray(part)[: count - begin]
        return embeddings

    @functools.cached_property
    def _opened(self) -> tuple[TensorFiles, Architecture, tokenizers.Tokenizer, str]:
        """Files, architecture, tokenizer and fingerprint of the weights, all checked."""
        if not self.folder:
            raise UserError(_NO_FOLDER.format(size="XXL " if self.dim == 4096 else ""))
        folder = find_encoder(Path(self.folder).expanduser())
        architecture = read_architecture(folder / "config.json")
        if architecture.d_model != self.dim:
            raise UserError(
                f"text.dim={self.dim}, but the encoder in {folder} has d_model="
                f"{architecture.d_model}; set --config.text.dim={architecture.d_model}, or give "
                "the folder of the right one."
            )
        tokenizer = tokenizers.find(folder)
        if tokenizer.size > architecture.vocab_size:
            raise UserError(
                f"the tokenizer of {folder} has {tokenizer.size} tokens, and the encoder "
                f"{architecture.vocab_size} embeddings; they are not of one model."
            )
        files = TensorFiles(folder)
        found = t5_weights.fingerprint(files, architecture, tokenizer.fingerprint)
        if self._expected_weights not in ("", found):
            raise UserError(
                f"{folder} holds another text encoder (weights {found}) than the one asked for by "
                f"text.weights={self._expected_weights}, which the networks were trained with; "
                "give that one's folder: --config.text.folder, or --text_folder for a checkpoint."
            )
        return files, architecture, tokenizer, found

    @functools.cached_property
    def _program(self) -> tuple[Callable[..., jax.Array], Params, int]:
        """The compiled encoder, its parameters and its batch size."""
        files, architecture, _, _ = self._opened
        mesh, dtype = local_mesh(), _DTYPES[self._dtype]
        batch = _prompts_a_device() * mesh.size
        params = t5_weights.load(files, architecture, dtype, mesh)
        text = "compiling the text encoder, this can take minutes"
        with announced(text, quiet=not distributed.is_primary()):
            program = compile_encoder(
                architecture, dtype, mesh, batch, self.max_length, self._keep_padding
            )
        return program, params, batch


def _prompts_a_device() -> int:
    """Enough to be worth gathering the weights; a CPU is not faster by the prompt with more."""
    return 1 if jax.default_backend() == "cpu" else 8


def compile_encoder(
    architecture: Architecture, dtype: Any, mesh: Mesh, batch: int, length: int,
    keep_padding: bool = False,
) -> jax.stages.Compiled:  # fmt: skip
    """Compiles an encoder for `batch` prompts of `length` tokens on a mesh, by shapes alone.

    Prompts are split over the mesh's batch axes and parameters over "fsdp". The program takes
    `(params, tokens, mask)`, as `T5Encoder`, with tokens `[batch, length]`.
    """
    shapes = t5_weights.parameter_shapes(architecture, dtype)
    params = with_shardings(shapes, state_shardings(shapes, mesh))
    prompts = by_clip(mesh)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=prompts)
    mask = jax.ShapeDtypeStruct((batch, length), bool, sharding=prompts)
    network = T5Encoder(architecture, dtype, keep_padding)

    def apply(params: Params, tokens: jax.Array, mask: jax.Array) -> Any:
        return network.apply({"params": params}, tokens, mask)

    with use_mesh(mesh):
        return jax.jit(apply, out_shardings=prompts).lower(params, tokens, mask).compile()
