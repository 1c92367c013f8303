"""The usual run: open, without a pool, and everybody does its part."""

from tests.programs.costs.play import attest, close_membership, play_round, record, set_up
from tests.programs.costs.scene import LONG_CONTACT, Scene
from tests.programs.costs.table import Table


def play(table: Table, capacity: int) -> None:
    """From creation to closing."""
    scene = Scene(table, capacity)
    scene.create("usual texts")
    set_up(scene, total_steps=4)
    scene.members = [scene.new_member(tier=i % 2) for i in range(capacity)]
    gather(scene)
    for member in scene.members[:-1]:
        scene.duty("ready", member)
    scene.duty("ready", scene.members[-1], "makes one transition: the first round opens")
    play_round(scene, "makes two transitions: the next round opens")
    play_round(scene, "makes two transitions: a round closes, the next one opens")
    play_round(scene, "makes two transitions: a round closes, the next one opens", by_witness=True)
    play_round(scene, "makes two transitions: a round closes, the drain round opens")
    play_round(scene, "makes two transitions: the last two rounds close", by_witness=True)
    assert attest(scene, scene.members, parts=2)
    record(scene)
    assert scene.run.state.phase == "Finished"
    end(scene)


def gather(scene: Scene) -> None:
    """Everybody joins; one leaves and comes back."""
    first, *others, last = scene.members
    for member in (first, *others):
        scene.join("open run", member, contact=LONG_CONTACT)
    scene.duty("leave", first)
    scene.join("open run, back to its slot", first, contact=LONG_CONTACT)
    scene.join("open run, makes one transition: the epoch starts", last, contact=LONG_CONTACT)
    accounts = scene.run.member_accounts(first)
    contact = {"contact": LONG_CONTACT}
    scene.send("coordinator.update_contact", "longest", accounts, first.hot_key, **contact)


def end(scene: Scene) -> None:
    """Settle, and take all rent back."""
    run, first = scene.run, scene.members[0]
    scene.note("coordinator.settle", "pay moves", run.settle(first))
    scene.note("coordinator.settle", "nothing to move", run.settle(first))
    scene.duty("leave", first)
    scene.note("coordinator.settle", "the slot is freed", run.settle(first))
    for member in scene.members[1:]:
        run.settle(member)
    scene.act("set_authority", "", authority=run.creator.pubkey())
    scene.act("close_run", "")
    close_membership(scene, first)
