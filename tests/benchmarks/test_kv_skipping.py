"""What the benchmark of skipping counts; the model of random weights answers anything."""

from __future__ import annotations

import numpy as np

from benchmarks import kv_skipping
from engine.sparsity.kv import KVBudget
from tests.engine.decoders import small_model


def test_questions_share_the_text_before_them() -> None:
    assert kv_skipping.common([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]]) == 2
    assert kv_skipping.common([[1, 2], [1, 2, 3]]) == 2
    assert kv_skipping.common([[1], [2]]) == 0


def test_an_answer_leaves_the_cache_as_it_was() -> None:
    model = small_model()
    cache = model.decoder.new_cache()
    model.decoder.extend(cache, [1, 2, 3])
    answer = kv_skipping.greedy(model, cache, [4, 5], 6)
    assert len(answer) == 6
    assert cache.token_ids == [1, 2, 3]
    rows = kv_skipping.forced(model, cache, [4, 5], answer)
    assert cache.token_ids == [1, 2, 3]
    assert rows.argmax(axis=-1).tolist() == answer[1:]


def test_bytes_read_count_blocks_and_the_ranges_of_all() -> None:
    model = small_model()
    cache = model.decoder.new_cache()
    model.decoder.extend(cache, np.arange(97).tolist() * 6)
    ours, dense = kv_skipping.bytes_read(cache, 582, 20)
    assert dense == 582 * cache.bytes_per_token
    # 36 blocks are full: three groups of 16 ranges, of 2 float16 for each of 32 columns
    heads = model.config.n_layers * model.config.n_kv_heads
    assert ours == 20 * 16 * cache.bytes_per_token + heads * 3 * 16 * 2 * 2 * 32


def test_every_budget_of_the_table_can_be_used() -> None:
    assert [KVBudget(n).n_blocks for n in kv_skipping.BUDGETS] == list(kv_skipping.BUDGETS)
