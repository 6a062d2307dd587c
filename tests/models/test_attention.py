import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.models import attention
from tests.quick_jit import quick_jit

attend = quick_jit(attention.attend)


def reference_attention(query, key, value, mask=None):
    """Softmax attention in float64, one batch row and head at a time; leaves masked keys out."""
    batch, queries, heads, dim = query.shape
    out = np.zeros((batch, queries, heads, dim))
    for b in range(batch):
        seen = np.ones(key.shape[1], bool) if mask is None else mask[b]
        for h in range(heads):
            logits = query[b, :, h] @ key[b, seen, h].T / np.sqrt(dim)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            out[b, :, h] = weights / weights.sum(axis=1, keepdims=True) @ value[b, seen, h]
    return out.reshape(batch, queries, heads * dim)


@settings(max_examples=6)
@given(
    st.tuples(*[st.integers(1, n) for n in (3, 5, 7, 3, 4)]), st.booleans(), st.integers(0, 2**31)
)
def test_attend_equals_float64_reference(sizes, masked, seed):
    batch, queries, keys, heads, dim = sizes
    rng = np.random.default_rng(seed)
    query = 3 * rng.normal(size=(batch, queries, heads, dim))
    key, value = rng.normal(size=(2, batch, keys, heads, dim))
    mask = None
    if masked:
        mask = rng.random((batch, keys)) < 0.5
        mask[:, rng.integers(keys)] = True
    actual = attend(*(a.astype(np.float32) for a in (query, key, value)), mask)
    np.testing.assert_allclose(actual, reference_attention(query, key, value, mask), atol=3e-5)


def test_attend_in_bfloat16_has_float32_softmax():
    # Logits near 200 differ by less than bfloat16 can tell there; float32 tells them apart.
    query = jnp.full((1, 1, 1, 4), 10.0, jnp.bfloat16)
    key = jnp.array([10.0, 10.0625], jnp.bfloat16)[None, :, None, None] * jnp.ones(4, jnp.bfloat16)
    value = jnp.array([0.0, 1.0], jnp.bfloat16)[None, :, None, None] * jnp.ones(4, jnp.bfloat16)
    out = attend(query, key, value)
    assert out.dtype == jnp.bfloat16
    expected = reference_attention(*(np.asarray(a, np.float64) for a in (query, key, value)))
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=2**-7)


def test_attend_with_huge_logits_is_finite():
    query = jnp.full((1, 1, 1, 4), 1e4)
    key = jnp.array([1e4, -1e4])[None, :, None, None] * jnp.ones(4)
    out = attend(query, key, jnp.stack([jnp.ones((1, 1, 4)), jnp.zeros((1, 1, 4))], axis=1))
    np.testing.assert_array_equal(out, np.ones((1, 1, 4)))
