"""Fixtures of the program tests: a fresh chain, and runs on it."""

from contextlib import contextmanager

import pytest

from tests.programs.chain_harness import Chain, Refused, Run


@pytest.fixture(scope="module")
def chain():
    """One chain for the tests of a module: each makes runs of its own, and a refused transaction changes nothing."""
    return Chain()


@pytest.fixture
def run(chain):
    """A run without a pool, created and nothing else."""
    run = Run(chain)
    run.create()
    return run


@pytest.fixture
def live(chain):
    """An open run of three members, tiers 0, 1, 1, in Warmup."""
    run = Run(chain)
    run.start()
    members = [run.member(tier) for tier in (0, 1, 1)]
    for member in members:
        run.join(member)
    return run, members


@pytest.fixture
def refused():
    """`with refused("Name"):` the block must fail with exactly this error."""

    @contextmanager
    def expect(name: str):
        with pytest.raises(Refused) as caught:
            yield
        assert caught.value.name == name, caught.value

    return expect
