"""A whole run without a pool: epochs, checkpoint, pay, end."""

import hashlib

from chain_harness import COORDINATOR, Run, config


def test_run_trains_to_its_end(live):
    run, members = live
    run.play_epoch(members)
    state = run.state
    assert (state.epoch, state.step, state.next_round) == (1, 4, 6)  # four trained rounds and a drain
    run.agree(members, "hub://somebody/weights")
    state = run.state
    assert state.phase == "Finished"
    part = [hashlib.sha256(bytes([p])).digest() for p in range(2)]
    assert state.weights_hash == hashlib.sha256(part[0] + part[1]).digest()
    assert (state.checkpoint_step, state.uri) == (4, b"hub://somebody/weights")


def test_history_is_the_fold_of_the_records(live):
    """The preimage of every closed round, as the design writes it, from events and commitments alone."""
    run, members = live
    for m in members:
        run.duty("ready", m)
    history = bytes(32)
    hashes = {}
    while run.state.phase == "RoundTrain":
        state = run.state
        before = next((r for r in state.rounds if r.number == state.open.number - 1 and r.status == 2), None)
        receipts = []
        for m in members:
            if before is not None and m.slot in before.witnesses:
                bits = sum(1 << s for s in before.committed).to_bytes(32, "little")
                receipts.append(run.duty("witness", m, round=before.number, bitmap=bits))
        for m in members:
            if m.slot in state.open.assigned:
                hashes[state.open.number, m.slot] = hashlib.sha256(
                    bytes([m.slot, state.open.number])
                ).digest()
                hash_ = hashes[state.open.number, m.slot]
                receipts.append(run.duty("commit", m, round=state.open.number, hash=hash_))
        run.chain.pass_time(1)
        opened = {r.number: r for r in state.rounds} | {state.open.number: state.open}
        for receipt in receipts:
            for name, event in receipt.events:
                if name == "RoundClosed":
                    history = fold(
                        history, run.state.spec_hash, opened[event["round"]], event, members, hashes
                    )
                    assert event["history"] == history
    assert run.state.history == history != bytes(32)


def fold(history, spec_hash, opened, closed, members, hashes) -> bytes:
    accepted = [i for i in range(256) if closed["accepted"][i // 8] >> (i % 8) & 1]
    u16, u32, u64 = (lambda n, size=size: n.to_bytes(size, "little") for size in (2, 4, 8))
    text = (
        history
        + u64(closed["epoch"])
        + u64(closed["round"])
        + u64(closed["step"])
        + bytes([closed["trained"]])
    )
    text += opened.seed + u64(opened.data_index) + u32(opened.samples) + closed["assigned"] + spec_hash
    text += u16(len(accepted))
    for slot in accepted:
        member = next(m for m in members if m.slot == slot)
        text += u16(slot) + bytes([member.tier]) + u16(member.weight) + hashes[closed["round"], slot]
    return hashlib.sha256(text).digest()


def test_pay_follows_weight_and_tier_without_a_pool(chain):
    run = Run(chain)
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(pay_per_tier=[4, 1, 1, 1], init_min_clients=2, total_steps=3))
    run.act("set_round_rate", rate=101)
    run.act("set_paused", paused=False)
    members = [run.member(0), run.member(1)]
    for m in members:
        run.join(m)
    run.play_epoch(members)
    run.agree(members)
    state = run.state
    assert state.phase == "Finished"
    assert state.total_earned + state.pay_carry == 3 * 101
    settled = [run.settle(m).event("Settled") for m in members]
    assert sum(s["earned"] for s in settled) == state.total_earned
    assert settled[0]["earned"] // settled[1]["earned"] in (3, 4)
    assert all(s.earned == 0 for s in run.state.slots)
    for m in members:
        assert run.membership_of(m)["earned"] > 0
    run.act("close_run")


def test_close_run_waits_for_settling(live, refused):
    run, members = live
    run.act("set_paused", paused=True)
    run.act("set_round_rate", rate=9)
    run.act("set_paused", paused=False)
    run.tick()
    run.play_epoch(members)
    run.agree(members)
    with refused("NotSettled"):
        run.act("close_run")
    for m in members:
        run.settle(m)
    run.act("close_run")
    for m in members:  # the run is gone: the memberships may go too
        run.chain.send(COORDINATOR.instruction("close_membership", run.member_accounts(m)), m.wallet)
        assert run.chain.data(run.membership(m.wallet.pubkey())) is None
