import threading

import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from descentlab.nn.blas import BlasLimit


def threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two():
    """BLAS has two threads, on any machine."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield


def test_a_limit_holds_inside_and_is_gone_afterwards():
    limit = BlasLimit()
    for _ in range(2):
        with limit:
            assert threads() == {1}
        assert threads() == {2}


def test_the_least_that_anyone_wants_holds():
    with BlasLimit(2):
        assert threads() == {2}
        with BlasLimit(1):
            assert threads() == {1}
            with BlasLimit(2):
                assert threads() == {1}
        assert threads() == {2}
    assert threads() == {2}


def test_one_that_ends_first_does_not_let_loose_the_other():
    entered, left = threading.Event(), threading.Event()
    seen = []

    def first():
        with BlasLimit():
            entered.set()
            assert left.wait(10)
            seen.append(threads())

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with BlasLimit():  # finds the first one's limit, and must not put that back for good
        pass
    left.set()
    thread.join()
    assert seen == [{1}]
    assert threads() == {2}


def test_one_that_began_first_and_ends_first_leaves_the_limit_to_the_other():
    first, second = BlasLimit(), BlasLimit()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads() == {1}
    second.__exit__(None, None, None)
    assert threads() == {2}


def test_an_error_lets_go():
    with pytest.raises(ZeroDivisionError), BlasLimit():
        raise ZeroDivisionError
    assert threads() == {2}
