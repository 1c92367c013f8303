//! The state machine, transition by transition, and under random schedules.

mod checkpoints;
mod members;
mod phases;
mod property;
mod rounds;
mod rules;
mod support;
