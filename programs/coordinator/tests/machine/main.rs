//! The state machine, transition by transition, and under random schedules.

mod checkpoints;
mod duties;
mod members;
mod pause;
mod pay;
mod phases;
mod property;
mod rounds;
mod rules;
mod samples;
mod support;
mod transitions;
mod votes;
