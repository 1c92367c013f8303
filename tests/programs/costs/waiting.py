"""A run that waits in vain: every phase ends by its time, tick by tick."""

from tests.programs.costs.play import set_up
from tests.programs.costs.scene import LONG_CONTACT, LONG_TEXTS, Scene
from tests.programs.costs.table import Table

WAIT_S = 60
"""No wait is longer."""


def play(table: Table, capacity: int) -> None:
    """An epoch that half of the members miss and nobody attests, then two for which nobody is ready."""
    scene = Scene(table, capacity)
    scene.create("longest texts", **LONG_TEXTS)
    set_up(scene, total_steps=9, waiting_for_members_extra_time=WAIT_S, max_failed_warmups=1, max_missed=9)
    scene.members = [scene.new_member() for _ in range(capacity)]
    for member in scene.members:
        scene.join("open run", member, contact=LONG_CONTACT)
    scene.duty("leave", scene.members.pop())
    scene.members.append(scene.new_member())
    scene.join("open run, takes over a left slot", scene.members[-1], contact=LONG_CONTACT)
    wait_and_tick(scene, "WaitingForMembers: the epoch starts")
    unattested_epoch(scene)
    scene.act("set_paused", "resumes", paused=False)
    wait_and_tick(scene, "WaitingForMembers: the epoch starts")
    wait_and_tick(scene, "Warmup: nobody is ready, the run rewinds")
    wait_and_tick(scene, "WaitingForMembers: the epoch starts")
    wait_and_tick(scene, "Warmup: nobody is ready, half of the members are dropped")


def unattested_epoch(scene: Scene) -> None:
    workers = scene.members[::2]
    for member in workers:
        scene.duty("ready", member)
    wait_and_tick(scene, "Warmup: half are ready, the first round opens")
    for member in workers[::2]:
        scene.commit(member, 1)
    wait_and_tick(scene, "RoundTrain: half have committed, the next round opens", transitions=2)
    for member in workers[::4]:
        scene.commit(member, 2)
    wait_and_tick(scene, "RoundTrain: half have committed")
    wait_and_tick(scene, "RoundWitness: nobody attested, a round closes, the next one opens")
    scene.act("set_paused", "asks for a pause", paused=True)
    wait_and_tick(scene, "RoundTrain: nobody has committed")
    wait_and_tick(
        scene, "RoundWitness: nobody attested, a round closes, the drain round is over", transitions=3
    )
    wait_and_tick(scene, "Cooldown: nobody attested, the epoch ends")


def wait_and_tick(scene: Scene, case: str, transitions: int = 1) -> None:
    scene.chain.pass_time(WAIT_S)
    scene.tick(case, transitions)
