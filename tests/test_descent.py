import numpy as np
import pytest

from descentlab.nn.descent import DESCENTS, batch, mini_batch, sequential, stochastic
from descentlab.nn.initializers import ORDER_STREAM, stream


def epoch_of(descent, samples, seed=0):
    """The samples of every step of one epoch, file order where nothing is shuffled."""
    order = descent.order(stream(seed, ORDER_STREAM), samples) if descent.shuffled else np.arange(samples)
    return [order[start:stop].tolist() for start, stop in descent.steps(samples)]


def test_every_descent_the_harness_promises_is_registered_under_its_name():
    assert set(DESCENTS) >= {"batch", "stochastic", "mini_batch", "sequential"}
    assert all(factory().name == name for name, factory in DESCENTS.items())


def test_batch_sees_all_samples_in_one_step():
    assert epoch_of(batch(), 7) == [[0, 1, 2, 3, 4, 5, 6]]


def test_sequential_sees_one_sample_a_step_in_file_order():
    assert epoch_of(sequential(), 4) == [[0], [1], [2], [3]]


def test_stochastic_sees_one_sample_a_step_in_random_order():
    steps = epoch_of(stochastic(), 50)
    assert all(len(step) == 1 for step in steps)
    seen = [sample for (sample,) in steps]
    assert sorted(seen) == list(range(50)) != seen


def test_a_short_last_batch_is_used():
    assert [len(step) for step in epoch_of(mini_batch(32), 100)] == [32, 32, 32, 4]
    assert [len(step) for step in epoch_of(mini_batch(10), 21)] == [10, 10, 1]
    assert [len(step) for step in epoch_of(mini_batch(10), 20)] == [10, 10]


def test_a_batch_as_large_as_the_data_or_larger_is_all_of_it():
    assert mini_batch(20).steps(20) == mini_batch(99).steps(20) == batch().steps(20) == [(0, 20)]


@pytest.mark.parametrize("name", DESCENTS)
@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 100])
def test_every_epoch_sees_every_sample_once(name, samples):
    descent = DESCENTS[name]()
    generator = stream(3, ORDER_STREAM)
    for _ in range(3):
        order = descent.order(generator, samples) if descent.shuffled else np.arange(samples)
        steps = descent.steps(samples)
        assert sorted(np.concatenate([order[start:stop] for start, stop in steps])) == list(range(samples))
        assert [start for start, _ in steps] == [0, *(stop for _, stop in steps[:-1])]
        assert steps[-1][1] == samples


def test_the_order_is_fresh_every_epoch_and_repeats_with_the_seed():
    generator = stream(5, ORDER_STREAM)
    first, second = (mini_batch().order(generator, 40) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, mini_batch().order(stream(5, ORDER_STREAM), 40))
    assert (first != mini_batch().order(stream(6, ORDER_STREAM), 40)).any()


def test_modes_that_shuffle_share_their_orders():
    # arms of a comparison that differ in the batch size alone see the same sequence of samples
    np.testing.assert_array_equal(
        np.concatenate(epoch_of(mini_batch(7), 40, seed=2)), np.concatenate(epoch_of(stochastic(), 40, seed=2))
    )


def test_any_order_is_as_likely_as_another():
    generator = stream(1, ORDER_STREAM)
    first = np.bincount([stochastic().order(generator, 5)[0] for _ in range(2000)], minlength=5)
    assert np.abs(first - 400).max() < 4 * np.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_refused_in_one_line(size):
    with pytest.raises(ValueError, match=rf"^descent\.batch_size={size}: must be a whole number from 1$"):
        mini_batch(size)
