"""Each filter against its definition and against the processors of transformers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from jielong.config.sampling import Sampling
from jielong.errors import CheckpointError, ConfigError
from jielong.generation.sampling import (
    new_generator,
    next_distribution,
    sample_each,
    sample_next,
)

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
NO_TOKENS = torch.empty(4, 0, dtype=torch.int64)
CPU = torch.device("cpu")


def random_logits(seed: int = 0, rows: int = 4, vocab: int = 50) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def only(**values: float) -> Sampling:
    return Sampling(**(OFF | values))


def test_without_filters_the_distribution_is_the_softmax():
    logits = random_logits()
    torch.testing.assert_close(next_distribution(logits, NO_TOKENS, only()), logits.softmax(-1))


def test_temperature_divides_the_logits():
    logits = random_logits()
    got = next_distribution(logits, NO_TOKENS, only(temperature=0.5))
    torch.testing.assert_close(got, (logits / 0.5).softmax(-1))


@pytest.mark.parametrize("k", [1, 3, 49, 50, 1000])
def test_top_k_keeps_the_k_likeliest_and_their_ratios(k):
    logits = random_logits()
    got = next_distribution(logits, NO_TOKENS, only(top_k=k))
    for row, probabilities in zip(logits.softmax(-1), got, strict=True):
        kept = row.sort(descending=True).indices[:k]
        want = torch.zeros_like(row)
        want[kept] = row[kept] / row[kept].sum()
        torch.testing.assert_close(probabilities, want)


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("vocab", [50, 3000])  # of 3000, 0.9 lies within 512 and 0.999 does not
def test_top_p_keeps_the_smallest_set_that_holds_p(p, vocab):
    logits = random_logits(vocab=vocab)
    got = next_distribution(logits, NO_TOKENS, only(top_p=p))
    for row, probabilities in zip(logits.double().softmax(-1), got, strict=True):
        order = row.sort(descending=True).indices.tolist()
        masses = row[order].cumsum(0)
        size = 1 + int((masses < p).sum())
        want = torch.zeros_like(row)
        want[order[:size]] = row[order[:size]] / row[order[:size]].sum()
        torch.testing.assert_close(probabilities, want.float())


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_min_p_drops_tokens_below_a_share_of_the_likeliest(share):
    logits = random_logits()
    got = next_distribution(logits, NO_TOKENS, only(min_p=share))
    row = logits.softmax(-1)
    want = torch.where(row >= share * row.amax(-1, keepdim=True), row, 0.0)
    torch.testing.assert_close(got, want / want.sum(-1, keepdim=True))


def test_repetition_penalty_makes_seen_tokens_rarer_whatever_their_sign():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    got = next_distribution(logits, torch.tensor([[0, 1, 1]]), only(repetition_penalty=2.0))
    torch.testing.assert_close(got, torch.tensor([[1.0, -4.0, 1.0, -1.0]]).softmax(-1))


def test_negative_ids_are_not_penalised():
    logits = random_logits(rows=1)
    sampling = only(repetition_penalty=1.5)
    with_gaps = next_distribution(logits, torch.tensor([[-1, 7, -1]]), sampling)
    torch.testing.assert_close(with_gaps, next_distribution(logits, torch.tensor([[7]]), sampling))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 1.0),
    penalty=st.floats(0.5, 2.0),
)
def test_all_filters_together_equal_transformers(seed, temperature, top_k, top_p, min_p, penalty):
    logits = random_logits(seed)
    previous = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(seed))
    processors = [
        hf.RepetitionPenaltyLogitsProcessor(penalty),
        hf.TemperatureLogitsWarper(temperature),
        *([hf.TopKLogitsWarper(top_k)] if top_k else []),
        *([hf.TopPLogitsWarper(top_p)] if top_p < 1.0 else []),
        hf.MinPLogitsWarper(min_p),
    ]
    want = logits.double()
    for processor in processors:
        want = processor(previous, want)
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty)
    got = next_distribution(logits.double(), previous, sampling)
    difference = (got - want.softmax(-1)).abs().sum(-1)
    # float32 may put a token at the very edge of a set on its other side, and no more than that
    edge = want.softmax(-1).where(want > -math.inf, torch.inf).amin(-1)
    assert bool(((difference < 1e-4) | (difference < 3 * edge)).all())


def test_temperature_zero_takes_the_likeliest_token_and_draws_nothing():
    logits, generator = random_logits(), new_generator(3, CPU)
    before = generator.get_state()
    got = sample_next(logits, NO_TOKENS, only(temperature=0.0), generator)
    assert got.tolist() == logits.argmax(-1).tolist()
    assert torch.equal(before, generator.get_state())


def test_draws_follow_the_distribution():
    logits = random_logits(rows=1, vocab=6)
    sampling = Sampling(temperature=1.5, top_p=0.9, repetition_penalty=1.0)
    want = next_distribution(logits, NO_TOKENS[:1], sampling)[0]
    many = logits.expand(20_000, -1)
    drawn = sample_next(many, NO_TOKENS[:1].expand(20_000, 0), sampling, new_generator(0, CPU))
    got = torch.bincount(drawn, minlength=6) / 20_000
    assert (got - want).abs().max() < 0.02
    assert bool((got[want == 0] == 0).all())


def test_same_seed_draws_the_same_tokens_and_no_seed_fresh_ones():
    logits, sampling = torch.zeros(1, 2**16), only()

    def draw(seed):
        return sample_next(logits, NO_TOKENS[:1], sampling, new_generator(seed, CPU)).item()

    assert draw(5) == draw(5) != draw(6)
    assert len({draw(None) for _ in range(4)}) > 1


@pytest.mark.parametrize("temperature", [1e-5, 1e-4, 100.0])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_extreme_temperatures_give_a_distribution(temperature, scale):
    got = next_distribution(random_logits() * scale, NO_TOKENS, only(temperature=temperature))
    torch.testing.assert_close(got.sum(-1), torch.ones(4))


def test_suppressed_tokens_are_never_drawn():
    logits = random_logits()
    logits[:, ::2] = -math.inf
    for sampling in (Sampling(seed=0), only(temperature=0.0), only(min_p=0.1)):
        assert float(next_distribution(logits, NO_TOKENS, sampling)[:, ::2].sum()) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = random_logits()
    logits[2, 3] = value
    with pytest.raises(CheckpointError, match="not finite"):
        next_distribution(logits, NO_TOKENS, Sampling())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "warm"),
        ("temperature", None),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", True),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.5),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"sampling.{name}"):
        Sampling(**{name: value})


def test_rows_with_generators_of_their_own_draw_what_each_draws_alone():
    logits = random_logits(vocab=3000)
    for sampling in (only(top_p=0.9), only(min_p=0.01), only(top_k=40, top_p=0.999), only()):
        together, alone = ([new_generator(seed, CPU) for seed in range(4)] for _ in range(2))
        for _ in range(20):
            expected = [
                int(sample_next(row[None], NO_TOKENS[:1], sampling, generator))
                for row, generator in zip(logits, alone, strict=True)
            ]
            assert sample_each(logits, NO_TOKENS, sampling, together).tolist() == expected


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 9}])
def test_what_a_filter_drops_is_never_drawn_and_what_it_keeps_is(filters):
    logits, sampling = random_logits(rows=1, vocab=12), only(temperature=2.0, **filters)
    kept = next_distribution(logits, NO_TOKENS[:1], sampling)[0].nonzero().flatten().tolist()
    many = logits.expand(20_000, -1)
    drawn = sample_next(many, NO_TOKENS[:1].expand(20_000, 0), sampling, new_generator(0, CPU))
    assert drawn.unique().tolist() == kept
