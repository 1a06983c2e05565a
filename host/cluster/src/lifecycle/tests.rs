use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lifecycle(attempts: u32) -> Lifecycle {
    let strategy = RestartStrategy::FixedDelay { attempts, delay: SECOND };
    Lifecycle::new(strategy, Random::of_seed(1))
}

/// Its answers, and its states.
fn live(lifecycle: &mut Lifecycle, events: Vec<Event>) -> Vec<(Vec<Action>, JobStatus)> {
    events.into_iter().map(|event| (lifecycle.on(event, SECOND, 7), lifecycle.status())).collect()
}

fn failed() -> Event {
    Event::Ended(JobOutcome::Failed(Diagnostic::external("the disk is full")))
}

fn over() -> Vec<Action> {
    vec![Action::GiveSlotsBack, Action::Over]
}

#[test]
fn a_job_runs_fails_is_restarted_and_ends() {
    let mut job = lifecycle(1);
    let lived = live(
        &mut job,
        vec![
            Event::Submitted,
            Event::SlotsGiven,
            Event::Started,
            failed(),
            Event::Due,
            Event::Started,
            Event::Ended(JobOutcome::Finished),
        ],
    );
    let expected = vec![
        (vec![Action::AskForSlots], JobStatus::Created),
        (vec![Action::Start { attempt: 0 }], JobStatus::Created),
        (vec![], JobStatus::Running),
        (vec![Action::Wait(SECOND)], JobStatus::Restarting),
        (vec![Action::Start { attempt: 1 }], JobStatus::Restarting),
        (vec![], JobStatus::Running),
        (over(), JobStatus::Finished),
    ];
    assert_eq!(lived, expected);
    assert_eq!((job.restarts(), job.failures().len()), (1, 1));
    assert!(job.failures()[0].restarted);
    // Whatever comes late changes nothing.
    assert_eq!(live(&mut job, vec![Event::Cancel, failed()]), vec![(vec![], JobStatus::Finished); 2]);
}

#[test]
fn one_failure_too_many_is_the_end_and_says_why() {
    let mut job = lifecycle(1);
    live(&mut job, vec![Event::Submitted, Event::SlotsGiven, Event::Started, failed(), Event::Due, failed()]);
    assert_eq!(job.status(), JobStatus::Failed);
    let Some(JobOutcome::Failed(error)) = job.outcome() else { panic!("it has failed") };
    assert!(error.detail.as_ref().unwrap().contains("it is not restarted: it has been restarted once"));
}

#[test]
fn it_can_be_cancelled_wherever_it_is() {
    let begin = || vec![Event::Submitted];
    let running = || vec![Event::Submitted, Event::SlotsGiven, Event::Started];
    for (before, (actions, status)) in [
        (vec![], (over(), JobStatus::Canceled)),
        (begin(), (over(), JobStatus::Canceled)),
        (running(), (vec![Action::CancelAttempt], JobStatus::Cancelling)),
        ([running(), vec![failed()]].concat(), (over(), JobStatus::Canceled)),
        (
            [running(), vec![Event::Paused, Event::Ended(JobOutcome::Finished)]].concat(),
            (over(), JobStatus::Canceled),
        ),
    ] {
        let mut job = lifecycle(9);
        live(&mut job, before);
        assert_eq!(live(&mut job, vec![Event::Cancel]), [(actions, status)]);
    }
    // Slots that come too late go back.
    let mut job = lifecycle(9);
    live(&mut job, [begin(), vec![Event::Cancel]].concat());
    assert_eq!(job.on(Event::SlotsGiven, SECOND, 7), []);
}

#[test]
fn a_pause_gives_the_slots_back_and_asks_for_them_anew() {
    let mut job = lifecycle(0);
    let lived = live(
        &mut job,
        vec![
            Event::Submitted,
            Event::SlotsGiven,
            Event::Started,
            Event::Paused,
            Event::Ended(JobOutcome::Finished),
            Event::Resume,
            Event::SlotsGiven,
            Event::Started,
            Event::Ended(JobOutcome::Finished),
        ],
    );
    let states: Vec<JobStatus> = lived.iter().map(|(_, status)| *status).collect();
    use JobStatus::{Created, Finished, Running, Suspended};
    assert_eq!(states, [Created, Created, Running, Running, Suspended, Created, Created, Running, Finished]);
    assert_eq!(lived[4].0, [Action::GiveSlotsBack]);
    assert_eq!(lived[6].0, [Action::Start { attempt: 1 }]);
}

#[test]
fn what_is_not_to_be_tried_again_is_not() {
    let mut job = lifecycle(9);
    let error = Diagnostic::user("nobody reads").give_up();
    let lived =
        live(&mut job, vec![Event::Submitted, Event::SlotsGiven, Event::Ended(JobOutcome::Failed(error))]);
    assert_eq!(lived[2], (over(), JobStatus::Failed));
    let mut job = lifecycle(9);
    live(&mut job, vec![Event::Submitted, Event::SlotsGiven, Event::Refused(Diagnostic::user("no input"))]);
    assert_eq!(job.status(), JobStatus::Failed);
    let mut job = lifecycle(9);
    live(&mut job, vec![Event::Submitted, Event::NoSlots("it needs 9".into())]);
    assert_eq!(job.status(), JobStatus::Failed);
}

#[test]
fn how_long_a_job_is_up_and_down_is_as_flink_says_it() {
    let mut job = lifecycle(2);
    // What happens and when; then how long the job is up, down, and restarting, a while later.
    let lived = [
        (Event::Submitted, 0, (0, 0, 0)),
        (Event::SlotsGiven, 10, (0, 0, 0)),
        (Event::Started, 100, (7, 0, 0)),
        (Event::Paused, 200, (107, 0, 0)),
        (Event::Ended(JobOutcome::Finished), 300, (0, 0, 0)),
        (Event::Resume, 400, (0, 0, 0)),
        (Event::Started, 500, (7, 0, 0)),
        (failed(), 1_000, (0, 7, 7)),
        (Event::Due, 2_000, (0, 1_007, 1_007)),
        (Event::Started, 2_500, (7, 0, 1_500)),
        (Event::Changed, 3_000, (507, 0, 1_500)),
        (Event::RolledBack(Diagnostic::user("it trapped")), 4_000, (0, 7, 7)),
        (Event::Due, 4_001, (0, 8, 8)),
        (Event::Started, 4_020, (7, 0, 20)),
        (Event::Ended(JobOutcome::Finished), 5_000, (-1, -1, 20)),
    ];
    assert_eq!(job.spell(), None);
    for (event, at, (up, down, restarting)) in lived {
        let told = format!("{event:?} at {at}");
        job.on(event, Duration::ZERO, at);
        let expected = Availability { up, down, restarting };
        assert_eq!(job.spell().unwrap().availability(at + 7), expected, "{told}");
    }
    // The calendar's clock may go back.
    assert_eq!(Spell::new(10).availability(0).up, 0);
}
