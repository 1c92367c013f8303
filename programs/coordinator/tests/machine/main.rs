//! The state machine, transition by transition, and under random schedules.

mod bytes;
mod calls;
mod cast;
mod checkpoints;
mod duties;
mod epochs;
mod members;
mod pause;
mod pay;
mod phases;
mod property;
mod refusals;
mod rounds;
mod rules;
mod samples;
mod stages;
mod support;
mod transitions;
mod votes;
