def test_three_members_train_and_agree(live):
    run, members = live
    run.play_epoch(members)
    run.agree(members)
    print(run.state.phase)
