"""The trainable model: logits and gradients against the slow decoder, packing, parts and names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from engine.config import DecoderConfig, Rope, RopeScaling
from engine.shapes import matrix_shapes, vector_shapes
from engine.training import building, model
from engine.training.layers import GROUPS
from engine.training.packing import Batch
from tests.engine.decoders import small_config, small_model
from tests.engine.training.checkpoints import (
    MemoryCheckpoint,
    cosine,
    disturb_adapters,
    gradients,
    random_batch,
    trainable,
)
from tests.parity import reference
from tests.parity.families import FAMILIES
from tests.tiny import LONG_IDS, TINY_NAMES, reference_logits, tiny_checkpoint

CONFIGS = {name: family.config for name, family in FAMILIES.items()} | {
    "llama: grouped heads": small_config(),
    "llama: tied, interleaved": small_config(tied_head=True, rope=Rope(interleaved=True)),
    "llama: all biases": small_config(qkv_bias=True, o_bias=True, mlp_bias=True),
    "llama: half of each head turned": small_config(rope=Rope(fraction=0.5)),
    "llama: dynamic rope": small_config(
        rope=Rope(scaling=RopeScaling("dynamic", factor=4.0, original_max_seq_len=8))
    ),
    "gemma 2": small_config(
        post_norms=True,
        attention_softcap=2.0,
        logit_softcap=5.0,
        sliding_window=4,
        full_attention_layers=(1,),
        activation="gelu_tanh",
        tied_head=True,
        embedding_scale=8.0,
    ),
    "gemma 3": small_config(
        post_norms=True,
        qk_norm=True,
        sliding_window=4,
        full_attention_layers=(1,),
        rope=Rope(theta=1e6),
        local_rope=Rope(theta=100.0),
    ),
    "mpt with norms of q and k": small_config(
        norm="layernorm", position="alibi", qk_norm_whole=True, clip_qkv=0.8
    ),
    "alibi, five heads": small_config(n_heads=5, n_kv_heads=5, position="alibi"),
}
# sizes that the fast path takes
FAST = {"hidden_size": 64, "intermediate_size": 96, "n_heads": 4, "head_dim": 32}
CONFIGS |= {
    "fast": small_config(**FAST),
    "fast, interleaved, biases": small_config(
        **FAST, rope=Rope(interleaved=True), qkv_bias=True, o_bias=True, mlp_bias=True
    ),
    "fast, tied, half turned": small_config(
        **(FAST | {"head_dim": 64}), tied_head=True, rope=Rope(fraction=0.5)
    ),
}
LENGTHS = [9, 1, 14]


def checkpoint_of(config: DecoderConfig) -> MemoryCheckpoint:
    return MemoryCheckpoint(config, reference.random_weights(config, np.random.default_rng(3)))


def reference_loss(config: DecoderConfig, values: dict[str, Any], batch: Batch) -> float:
    """The sum of -log p, document by document."""
    total, start = 0.0, 0
    for length in batch.lengths:
        logits = reference.logits(config, values, batch.token_ids[start : start + length])
        inside = (batch.rows >= start) & (batch.rows < start + length)
        rows, targets = batch.rows[inside] - start, batch.targets[inside]
        logits = logits[rows] - logits[rows].max(axis=1, keepdims=True)
        total -= (logits[np.arange(len(rows)), targets] - np.log(np.exp(logits).sum(1))).sum()
        start += length
    return float(total)


def merged(values: dict[str, Any], parameters: dict[str, Any], scale: float) -> dict[str, Any]:
    """The weights in float64 with adapters added and trained tensors in their places."""
    result = {name: value.astype(np.float64) for name, value in values.items()}
    for name, value in parameters.items():
        if name.endswith(".lora_a"):
            matrix = name.removesuffix(".lora_a")
            result[matrix] = result[matrix] + scale * parameters[f"{matrix}.lora_b"] @ value
        elif not name.endswith(".lora_b"):
            result[name] = value
    return result


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_each_document_equal_the_slow_decoder(name: str) -> None:
    checkpoint = checkpoint_of(CONFIGS[name])
    batch = random_batch(LENGTHS, checkpoint.settings.vocab_size)
    ours = trainable(checkpoint).logits(batch).numpy()
    start = 0
    for length in LENGTHS:
        theirs = reference.logits(
            checkpoint.settings, checkpoint.values, batch.token_ids[start : start + length]
        )
        assert_allclose(ours[start : start + length], theirs, rtol=1e-3, atol=1e-3)
        start += length


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_finite_differences_of_the_slow_decoder(name: str, method: str) -> None:
    checkpoint = checkpoint_of(CONFIGS[name])
    config = checkpoint.settings
    batch = random_batch(LENGTHS, config.vocab_size)
    one = trainable(checkpoint, method, rank=3, alpha=4.0)
    disturb_adapters(one)
    found = gradients(one, batch)
    parameters = {k: p.detach().numpy().astype(np.float64) for k, p in one.trainable.items()}

    def loss() -> float:
        return reference_loss(config, merged(checkpoint.values, parameters, 4 / 3), batch)

    rng = np.random.default_rng(7)
    for key, gradient in found.items():
        # one direction a tensor, with a part along the gradient so that it says something
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        direction += gradient / max(np.linalg.norm(gradient), 1e-12)
        before, step = parameters[key], 1e-5
        parameters[key] = before + step * direction
        above = loss()
        parameters[key] = before - step * direction
        difference = (above - loss()) / (2 * step)
        parameters[key] = before
        expected = float((gradient * direction).sum())
        assert expected == pytest.approx(difference, rel=2e-3, abs=2e-3), key


def test_the_loss_of_packed_documents_is_the_sum_of_their_losses() -> None:
    checkpoint = checkpoint_of(small_config())
    one = trainable(checkpoint)
    batches = [random_batch([n], 97, seed=n) for n in (5, 17, 30)]
    starts = np.cumsum([0, 5, 17])
    packed = Batch(
        np.concatenate([b.token_ids for b in batches]),
        np.concatenate([b.positions for b in batches]),
        [5, 17, 30],
        np.concatenate([b.rows + s for b, s in zip(batches, starts, strict=True)]),
        np.concatenate([b.targets for b in batches]),
    )
    together, alone = one(packed), [one(b) for b in batches]
    assert together.n == sum(one.n for one in alone) == len(packed.targets)
    assert together.correct == sum(one.correct for one in alone)
    assert float(together.total.detach()) == pytest.approx(
        sum(float(one.total.detach()) for one in alone), rel=1e-5
    )


def test_correct_counts_the_likeliest_tokens() -> None:
    one = trainable(checkpoint_of(small_config()))
    batch = random_batch([40, 20], 97)
    best = one.logits(batch).argmax(1).numpy()[batch.rows]
    batch = batch._replace(targets=np.where(np.arange(len(best)) % 3 == 0, best, (best + 1) % 97))
    assert one(batch).correct == len(range(0, len(best), 3))


def test_a_batch_without_labels_has_no_loss() -> None:
    one = trainable(checkpoint_of(small_config()))
    batch = random_batch([4], 97, share=0.0)
    loss = one(batch)
    assert (float(loss.total.detach()), loss.n, loss.correct) == (0.0, 0, 0)
    loss.total.backward()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_computing_layers_again_changes_no_gradient(method: str) -> None:
    checkpoint, batch = checkpoint_of(small_config()), random_batch(LENGTHS, 97)
    kept = trainable(checkpoint, method)
    again = trainable(checkpoint, method, build_checkpointing=True)
    disturb_adapters(kept)
    disturb_adapters(again)
    expected = gradients(kept, batch)
    for name, gradient in gradients(again, batch).items():
        assert_allclose(gradient, expected[name], rtol=1e-5, atol=1e-5)


def test_full_fine_tuning_trains_every_tensor_and_a_tied_head_once() -> None:
    config = small_config(tied_head=True, qkv_bias=True)
    one = trainable(checkpoint_of(config), "full")
    assert set(one.trainable) == {*matrix_shapes(config), *vector_shapes(config)}
    shapes = {name: values.shape for name, values in one.full_tensors().items()}
    assert shapes == reference.weight_shapes(config)
    assert one.adapter_matrices() == {}


def test_last_layers_trains_those_layers_and_the_final_norm() -> None:
    config = small_config(n_layers=3)
    checkpoint = checkpoint_of(config)
    one = trainable(checkpoint, "last_layers", n_layers=1)
    assert {n.split(".")[0] + n.split(".")[-2] for n in one.trainable if "." in n} == {"layers2"}
    assert [n for n in one.trainable if "." not in n] == ["final_norm"]
    whole = trainable(checkpoint, "full")
    batch = random_batch(LENGTHS, 97)
    everything = gradients(whole, batch)
    for name, gradient in gradients(one, batch).items():
        assert_allclose(gradient, everything[name], rtol=1e-4, atol=1e-5)


def test_last_layers_refuses_more_layers_than_there_are() -> None:
    with pytest.raises(ValueError, match="n_layers 3 is more than the 2 of this model"):
        trainable(checkpoint_of(small_config()), "last_layers", n_layers=3)


def test_lora_targets_name_the_matrices_that_get_an_adapter() -> None:
    config = small_config(n_layers=3)
    one = trainable(checkpoint_of(config), targets="wq, w_down", n_layers=2, rank=5)
    matrices = one.adapter_matrices()
    assert sorted(matrices) == sorted(f"layers.{i}.{n}" for i in (1, 2) for n in ("wq", "w_down"))
    a, b = matrices["layers.1.w_down"]
    assert (a.shape, b.shape) == ((5, config.intermediate_size), (config.hidden_size, 5))
    assert not b.any()
    assert np.abs(a).max() <= config.intermediate_size**-0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "wq,wz"}, "unknown target 'wz' of LoRA; known are all, wq, wk"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0; use 0 to turn it off"),
        ({"alpha": 0.0}, "alpha must be positive, got 0.0"),
    ],
)
def test_lora_refuses_settings_without_meaning(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainable(checkpoint_of(small_config()), **settings)


def test_the_seed_decides_the_first_a() -> None:
    checkpoint = checkpoint_of(small_config())
    first, same, other = (
        trainable(checkpoint, build_seed=seed).adapter_matrices()["layers.0.wq"][0]
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert (first != other).all()


def test_a_parameter_changed_in_place_changes_the_product() -> None:
    checkpoint, batch = checkpoint_of(small_config()), random_batch(LENGTHS, 97)
    one = trainable(checkpoint, "full")
    with torch.no_grad():
        one.trainable["layers.0.wk"].mul_(2)
    checkpoint.values["layers.0.wk"] = 2 * checkpoint.values["layers.0.wk"]
    assert_allclose(one.logits(batch), trainable(checkpoint).logits(batch), rtol=1e-4, atol=1e-4)


def test_dropout_drops_inputs_of_adapters_in_training_only() -> None:
    one = trainable(checkpoint_of(small_config()), dropout=0.5, rank=3)
    disturb_adapters(one, size=0.3)
    batch = random_batch(LENGTHS, 97)
    torch.manual_seed(0)
    first, second = float(one(batch).total.detach()), float(one(batch).total.detach())
    assert first != second
    one.eval()
    assert one(batch).total.item() == one(batch).total.item()


@pytest.mark.parametrize("mass", [0.9, 0.999])
def test_columns_by_mass_change_gradients_little(mass: float) -> None:
    checkpoint = checkpoint_of(small_config(vocab_size=1500))
    batch = random_batch([120], 1500)
    exact, sparse = (
        trainable(checkpoint, "full"),
        trainable(checkpoint, "full", build_head_mass=mass),
    )
    assert cosine(gradients(exact, batch), gradients(sparse, batch)) > 0.99


def test_logits_equal_the_engine() -> None:
    engine_model = small_model("f32")
    checkpoint = MemoryCheckpoint(
        small_config(), reference.random_weights(small_config(), np.random.default_rng(0))
    )
    ids = list(np.random.default_rng(1).integers(0, 97, 50))
    batch = random_batch([50], 97)._replace(token_ids=np.array(ids))
    ours = trainable(checkpoint).logits(batch).numpy()
    theirs = engine_model.logits(ids)
    assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize("name", TINY_NAMES)
def test_logits_equal_transformers(name: str) -> None:
    folder = tiny_checkpoint(name)
    one = trainable(folder)
    batch = random_batch([len(LONG_IDS)], 3)._replace(token_ids=np.array(LONG_IDS))
    theirs = reference_logits(folder, LONG_IDS)
    assert_allclose(one.logits(batch), theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max() / 10)


@pytest.mark.parity
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_families_equal_transformers(name: str) -> None:
    family = FAMILIES[name]
    theirs_model = family.model()
    checkpoint = MemoryCheckpoint(replace(family.config), family.weights(theirs_model))
    batch = random_batch([24], family.config.vocab_size)
    ours = trainable(checkpoint).logits(batch).numpy()
    with torch.no_grad():
        theirs = theirs_model(torch.from_numpy(batch.token_ids)[None]).logits[0].numpy()
    assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("base", ["bf16", "int8", "int16", "q4"])
@pytest.mark.parametrize("flags", [FAST, FAST | {"activation": "gelu"}], ids=["fast", "generic"])
def test_other_bases_point_the_same_way(base: str, flags: dict[str, Any]) -> None:
    checkpoint, batch = checkpoint_of(small_config(**flags)), random_batch([60, 41], 97)
    if base == "q4":  # of weights that 4 bits hold
        rounded = trainable(checkpoint, base="q4")
        for layer, kept in enumerate(rounded.layers):
            for names, group in zip(GROUPS.values(), kept.projections.values(), strict=True):
                parts = group.base.dequantized().float().split(group.sizes)
                for name, part in zip(names, parts, strict=True):
                    checkpoint.values[f"layers.{layer}.{name}"] = part.numpy()
    exact, ours = trainable(checkpoint), trainable(checkpoint, base=base)
    for one in (exact, ours):
        disturb_adapters(one)
    assert cosine(gradients(exact, batch), gradients(ours, batch)) > 0.99
    assert ours(batch).total.item() == pytest.approx(exact(batch).total.item(), rel=5e-3)


@pytest.mark.parametrize("method", ["lora", "full", "last_layers"])
def test_the_fast_path_is_the_generic_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, batch = checkpoint_of(small_config(**FAST, n_layers=3)), random_batch(LENGTHS, 97)
    settings = {"n_layers": 2} if method == "last_layers" else {}
    found = []
    for fast in (True, False):
        if not fast:
            for module in (building, model):
                monkeypatch.setattr(module, "is_fast", lambda config: False)
        one = trainable(checkpoint, method, **settings)
        disturb_adapters(one)
        found.append(gradients(one, batch))
    for name, gradient in found[0].items():
        assert_allclose(gradient, found[1][name], rtol=1e-3, atol=1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_activations_made_again_give_the_same_gradients(method: str) -> None:
    checkpoint, batch = checkpoint_of(small_config(**FAST)), random_batch(LENGTHS, 97)
    found, kept = [], []

    def keep(tensor: Any) -> Any:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    for is_lean in (False, True):
        one = trainable(checkpoint, method)
        disturb_adapters(one)
        for layer in one.layers:
            for projection in layer.projections.values():
                projection.is_lean = is_lean
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = one(batch)
        loss.total.backward()
        found.append({name: p.grad.numpy().copy() for name, p in one.trainable.items()})
        kept.append(sum(sizes.values()))
    for name, gradient in found[0].items():
        assert_array_equal(gradient, found[1][name])
    # without a gradient the first norm keeps nothing, and its input and weight take its place
    config = checkpoint.decoder_config()
    norms = 2 * config.n_layers - (method == "lora")
    less = sum(LENGTHS) * (norms * config.hidden_size + config.n_layers * config.intermediate_size)
    assert kept[0] - kept[1] == 4 * (less - (method == "lora") * config.hidden_size)


def test_a_base_of_4_bits_keeps_less() -> None:
    checkpoint = checkpoint_of(small_config(**FAST))
    lean = {
        base: {p.is_lean for layer in trainable(checkpoint, base=base).layers
               for p in layer.projections.values()}
        for base in ("q4", "int8")
    }  # fmt: skip
    assert lean == {"q4": {True}, "int8": {False}}


@pytest.mark.parametrize("flags", [FAST, FAST | {"activation": "gelu"}], ids=["fast", "generic"])
def test_trained_matrices_are_multiplied_as_the_base_says(flags: dict[str, Any]) -> None:
    checkpoint, batch = checkpoint_of(small_config(**flags)), random_batch([60, 41], 97)
    exact, ours = (trainable(checkpoint, "full", base=base) for base in ("f32", "bf16"))
    kept = [p for layer in ours.layers for p in layer.projections.values()]
    assert ours.logits_head.rounded and all(p.rounded for p in kept)
    assert not exact.logits_head.rounded
    assert all(p.weight.dtype == torch.float32 for p in kept)
    assert cosine(gradients(exact, batch), gradients(ours, batch)) > 0.999
    assert ours(batch).total.item() == pytest.approx(exact(batch).total.item(), rel=2e-3)


def test_last_layers_over_a_base_of_another_width() -> None:
    checkpoint, batch = checkpoint_of(small_config(**FAST, n_layers=3)), random_batch([50], 97)
    exact, ours = (
        trainable(checkpoint, "last_layers", base=base, n_layers=1) for base in ("f32", "bf16")
    )
    assert cosine(gradients(exact, batch), gradients(ours, batch)) > 0.99
