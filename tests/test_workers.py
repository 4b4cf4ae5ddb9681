import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from shared import assert_same_trainings, cliff, drained, gone, recipe, splits, steep, with_snapshots
from threadpoolctl import threadpool_info

from descentlab.nn import memory, pool, workers
from descentlab.nn.activations import Activation, leaky_relu
from descentlab.nn.parameters import Parameters
from descentlab.nn.trainer import iterate, train_recipe
from descentlab.nn.updates import UPDATES


@pytest.fixture
def processes(monkeypatch):
    """Every training is large enough for processes; the list of those that are started."""
    for work in ("PROCESS_WORK", "COLD_WORK", "WARM_WORK"):
        monkeypatch.setattr(pool, work, 1)
    monkeypatch.setattr(memory, "CHUNK_BYTES", 40_000)  # several chunks for each
    return spied(monkeypatch)


def spied(monkeypatch):
    used, taken = [], workers._taken
    monkeypatch.setattr(workers, "_taken", lambda count: [used.append(one.process) or one for one in taken(count)])
    return used


class Probe:
    """What a worker says of itself."""

    def __init__(self, number=0, array=None):
        self.number, self.array = number, array

    def number_and_pid(self):
        return self.number, os.getpid()

    def blas_threads(self):
        import scipy.linalg  # noqa: F401 has a BLAS of its own

        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def layout(self):
        self.array += 1  # may be written to
        return self.array, self.array.strides

    def fail(self, error):
        raise error

    def count(self, numbers, tell):
        for number in numbers:
            tell(number)
        return len(numbers)


# the same bits


def test_a_worker_whose_pipes_are_closed_already_ends_without_a_word():
    worker = workers.Worker()
    worker.process.stdin.close()  # as when the interpreter ends, in any order
    worker.leave()
    assert worker.process.poll() is not None


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("update", UPDATES)
def test_neither_threads_nor_processes_alter_a_bit(update, dtype, processes):
    for layers, descent in (((5, 7, 3), "mini_batch"), ((5, 3, 3, 3), "batch"), ((5, 4, 2), "stochastic")):
        data = splits(outputs=layers[-1])
        stacked = recipe(layers=layers, descent=descent, update=update, dtype=dtype, restarts=9, diagnostics="full",
                         learning_rate=(0.1, 1.0), learning_rate_decay=0.9, weight_decay=0.01,
                         activation=leaky_relu(0.3))  # fmt: skip
        alone = train_recipe(stacked, data, workers=1)
        assert not processes
        assert_same_trainings(alone, train_recipe(stacked, data, workers=2))
        assert len(processes) == 2
        assert_same_trainings(alone, train_recipe(stacked, data, workers=3))
        assert len(processes) == 2 + 3
        processes.clear()


@pytest.mark.parametrize("update", ["gradient_descent", "adam"])
def test_restarts_diverge_in_processes_as_they_do_elsewhere(update, processes):
    data = splits(lambda seed: steep(seed))
    stacked = cliff(update=update, log_every=5, learning_rate=(0.01, 0.2, 1e3, 1e160))
    alone = train_recipe(stacked, data)
    assert len(np.unique(alone.diverged_epoch)) > (1 if update == "adam" else 2)
    with np.errstate(all="raise"):
        assert_same_trainings(alone, train_recipe(stacked, data, workers=2))
    assert processes


@pytest.mark.parametrize("update", ["gradient_descent", "adam"])
def test_threads_and_processes_go_on_from_each_others_snapshots(update, processes, monkeypatch):
    data = splits(lambda seed: steep(seed))
    stacked = cliff(update=update, epochs=5, log_every=4, restarts=4, learning_rate=(0.01, 0.2, 1e160))
    whole, by_one = with_snapshots(stacked, data)
    trained, by_processes = with_snapshots(stacked, data, 2)
    assert_same_trainings(whole, trained)
    for one, other in zip(by_one, by_processes, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds"}:
            np.testing.assert_array_equal(one[name], other[name])
    for start in by_one[::2]:
        assert_same_trainings(whole, drained(iterate(stacked, data, 2, start=start))[0])
    assert len(processes) == 2 * (1 + len(by_one[::2]))
    monkeypatch.setattr(pool, "PROCESS_WORK", 10**18)
    for start in by_processes[1::2]:
        assert_same_trainings(whole, drained(iterate(stacked, data, 2, start=start))[0])


def test_processes_tell_of_every_epoch_of_every_restart(processes):
    told, records = [], []
    stacked = recipe(restarts=5, epochs=7, log_every=7)
    for record in iterate(stacked, splits(), 2, told.append):
        records.append(record.epoch)
    assert sum(told) == 7 * 5
    assert records == [0, 7]
    assert processes


def test_functions_that_no_other_process_finds_are_sent_as_their_code(processes):
    def cube(z, out):
        return np.power(z, 3, out=out)

    def slope(z, a, out):
        return np.multiply(3 * z, z, out=out)

    own = Activation("cube", cube, slope, slope_from_value=False)
    stacked = recipe(activation=own, restarts=4)
    alone = train_recipe(stacked, splits(), workers=1)
    for number, module in enumerate((cube.__module__, "__main__", "of_this_process_alone"), start=1):
        cube.__module__ = slope.__module__ = module
        assert_same_trainings(alone, train_recipe(stacked, splits(), workers=2))
        assert len(processes) == 2 * number


def test_what_cannot_be_sent_is_left_to_threads(processes):
    lock = threading.Lock()

    def cube(z, out):
        with lock:
            return np.power(z, 3, out=out)

    def slope(z, a, out):
        return np.multiply(3 * z, z, out=out)

    stacked = recipe(activation=Activation("cube", cube, slope, slope_from_value=False), restarts=4)
    assert_same_trainings(train_recipe(stacked, splits(), workers=1), train_recipe(stacked, splits(), workers=2))
    assert not processes


# which kind


def test_a_small_training_and_a_lone_worker_start_no_process(monkeypatch):
    used = spied(monkeypatch)
    train_recipe(recipe(restarts=20), splits(), workers=2)
    for work in ("PROCESS_WORK", "COLD_WORK", "WARM_WORK"):
        monkeypatch.setattr(pool, work, 1)
    train_recipe(recipe(restarts=20), splits(), workers=1)
    train_recipe(recipe(restarts=1), splits(), workers=2)
    assert not used


def test_processes_are_kept_for_the_next_training(processes):
    train_recipe(recipe(restarts=4), splits(), workers=2)
    train_recipe(recipe(restarts=4), splits(), workers=2)
    first, second = {one.pid for one in processes[:2]}, {one.pid for one in processes[2:]}
    assert len(first) == 2
    assert first & second
    assert workers.warm() >= 2


def test_two_trainings_that_take_turns_have_processes_of_their_own(processes):
    alone = train_recipe(recipe(restarts=4), splits())
    both = [iterate(recipe(restarts=4), splits(), 2) for _ in range(2)]
    for records in both:
        next(records)
    assert len({one.pid for one in processes}) == 4
    for records in both:
        assert_same_trainings(alone, drained(records)[0])


# what a worker is


def test_a_worker_holds_blas_to_one_thread():
    with workers.holding([Probe(), Probe()]) as ask:
        for threads in ask("blas_threads"):
            assert threads
            assert set(threads) == {1}


def test_arrays_arrive_in_their_order_of_memory_and_may_be_written():
    arrays = [np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3, order="F"), np.empty((0, 3)), np.zeros(())]
    with workers.holding([Probe(array=array) for array in arrays]) as ask:
        for array, (back, strides) in zip(arrays, ask("layout"), strict=True):
            np.testing.assert_array_equal(back, array + 1)
            assert strides == array.strides or not array.size


def test_parameters_are_sent_without_their_views_and_in_their_order():
    for layers in ((2, 3, 1), (5, 30, 3)):
        whole = Parameters.empty(layers, 6, "float64")
        whole.flat[...] = np.arange(whole.flat.size).reshape(whole.flat.shape)
        part = whole[2:5]
        assert part.W
        assert workers._packed(part)[0].nbytes < 1000 + part.flat.nbytes
        with workers.holding([Probe(part)]) as ask:
            ((back, _),) = ask("number_and_pid")
        np.testing.assert_array_equal(back.flat, part.flat)
        assert np.argsort(back.flat.strides).tolist() == np.argsort(part.flat.strides).tolist()


def test_counts_that_are_told_add_up():
    told = []
    with workers.holding([Probe(), Probe()]) as ask:
        assert ask("count", [1, 2, 3], told=told.append) == [3, 3]
        assert sum(told) == 12
        assert ask("count", [1], told=told.append) == [1, 1]
    assert sum(told) == 14


# errors and ends


@pytest.mark.parametrize("error", [FloatingPointError("overflow"), MemoryError("of 3 TB"), KeyError("a")])
def test_what_a_worker_raises_is_raised_here_with_where_it_was(error):
    with workers.holding([Probe(), Probe()]) as ask:
        with pytest.raises(type(error), match=error.args[0]) as raised:
            ask("fail", error)
        assert "in fail" in raised.value.__notes__[0]
        assert len(ask("number_and_pid")) == 2  # they are still there


def test_an_error_that_does_not_survive_the_journey_is_told_by_name():
    class Own(Exception):
        pass

    assert str(workers._portable(Own("lost"))) == "Own: lost"


def test_a_worker_that_is_killed_ends_the_training_in_a_clear_error(processes):
    here, plain = os.getpid(), UPDATES["gradient_descent"]()

    def apply(*arguments):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        plain.apply(*arguments)

    stacked = recipe(restarts=4, update=dataclasses.replace(plain, apply=apply))
    with pytest.raises(RuntimeError, match="gone: killed by signal 9"):
        train_recipe(stacked, splits(), workers=2)
    assert all(one.poll() is not None for one in processes)
    assert_same_trainings(*(train_recipe(recipe(restarts=4), splits(), workers) for workers in (1, 2)))


def test_workers_that_died_in_their_sleep_are_replaced(processes):
    alone = train_recipe(recipe(restarts=4), splits())
    train_recipe(recipe(restarts=4), splits(), workers=2)
    for one in processes:
        one.kill()
        one.wait()
    assert_same_trainings(alone, train_recipe(recipe(restarts=4), splits(), workers=2))


def test_ctrl_c_ends_workers_in_the_middle_of_an_epoch(processes):
    rng = np.random.default_rng(0)
    data = {"train": (rng.normal(size=(40_000, 5)), np.eye(3)[rng.integers(0, 3, 40_000)])}
    records = iterate(recipe(descent="stochastic", restarts=2, epochs=1), data, 2)
    next(records)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        next(records)
    assert time.perf_counter() - began < 1.5  # the epoch would take some three seconds
    assert all(one.poll() is not None for one in processes)


def test_a_training_that_is_left_in_its_middle_gives_its_workers_back(processes):
    records = iterate(recipe(restarts=4), splits(), 2)
    next(records)
    records.close()
    assert all(one.poll() is None for one in processes)
    assert {one.pid for one in processes} <= {one.process.pid for one in workers._idle}


PARENT = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from shared import recipe
from descentlab.nn import pool, trainer, workers
pool.PROCESS_WORK = pool.COLD_WORK = 1
rng = np.random.default_rng(0)
data = {{"train": (rng.normal(size=(40_000, 5)), np.eye(3)[rng.integers(0, 3, 40_000)])}}
taken = workers._taken
def said(count):
    found = taken(count)
    print(*(one.process.pid for one in found), flush=True)
    return found
workers._taken = said
for record in trainer.iterate(recipe(descent="stochastic", restarts=2, epochs={epochs}), data, 2):
    print(record.epoch, flush=True)
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "none"])
def test_no_worker_outlives_its_parent(end):
    code = PARENT.format(tests=os.path.dirname(__file__), epochs=0 if end == "none" else 1000)  # noqa: PTH120
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        assert len(pids) == 2
        assert parent.stdout.readline() == "0\n"
        if end != "none":
            time.sleep(0.2)
            parent.send_signal(getattr(signal, end))
        assert (parent.wait(60) == 0) == (end == "none")
    assert all(gone(pid) for pid in pids)
