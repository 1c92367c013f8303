"""The program's rounds are those that `psyche_train.batch_ramp` foretells."""

from psyche_train.batch_ramp import BatchRamp
from tests.programs import stages
from tests.programs.chain_harness import Chain


def test_rounds_of_a_run_grow_as_the_ramp_foretells(chain: Chain) -> None:
    keys = {
        "global_batch_size_start": 3,
        "global_batch_size_end": 9,
        "global_batch_size_warmup_tokens": 700,
    }
    ramp = BatchRamp(**keys)
    run, members = stages.training(chain, **keys, max_seq_len=16, total_steps=50, epoch_time=100_000)
    seen = {}
    for _ in range(10):
        newest = run.state.open
        seen[newest.number] = (newest.data_index, newest.samples)
        run.play_round(members)
    foretold, data_index = [], 0
    for _ in seen:
        samples = ramp.samples(data_index, 16, len(members))
        foretold.append((data_index, samples))
        data_index += samples
    assert list(seen.values()) == foretold
    assert len({samples for _, samples in foretold}) > 4
