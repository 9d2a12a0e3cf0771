//! A restore as a small model, searched exhaustively: one account that moves after the backup, data planes that die,
//! restart, say goodbye or are new, a store that is put back at any moment, operators who decide for either side, as
//! often as they like, and calls that die at every step.
//!
//! What a call decides on is the code's own [`Picture`](super::Picture); what data planes do is a model of
//! `feed::doubt` and `feed::replica`. With all guards no reachable state breaks a promise; with any one of them taken
//! away the search finds one that does. That a move waits for every data plane is what the model of the fence shows;
//! here it is taken for granted.

mod steps;
mod world;

use crate::domain::model::search::{self, Model};

use steps::Steps;
use world::{Guard, Kind, Scope, World};

/// A restore, in a scope, with all guards or without one.
struct Restore {
    scope: Scope,
    without: Option<Guard>,
}

impl Model for Restore {
    type World = World;

    fn first(&self) -> World {
        World::new(self.scope)
    }

    fn steps(&self, from: &World) -> Vec<World> {
        Steps::of(from, self.without)
    }

    fn names(&self, from: &World) -> Vec<String> {
        Steps::names(from, self.without)
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        world.broken()
    }

    fn is_goal(&self, world: &World) -> bool {
        world.is_resolved()
    }
}

fn holds(scope: Scope) {
    let without = None;
    search::holds(&Restore { scope, without });
}

fn is_needed(guard: Guard, scope: Scope) {
    let without = Some(guard);
    search::breaks(&Restore { scope, without }, guard);
}

#[test]
fn a_restore_sends_nobody_to_the_wrong_side() {
    holds(Scope::of([Kind::Stays, Kind::Stays]).deaths(2).calls(2));
}

#[test]
fn nor_does_it_where_a_data_plane_came_later() {
    holds(Scope::of([Kind::Stays, Kind::New]).deaths(2).calls(2));
}

#[test]
fn nor_where_one_had_said_goodbye() {
    holds(Scope::of([Kind::Stays, Kind::Leaves]).deaths(1).calls(2));
}

#[test]
fn a_restarted_data_plane_must_prove_the_restore() {
    is_needed(Guard::HeldIsProof, Scope::STAYS);
}

#[test]
fn a_table_must_be_written_down_before_it_is_acknowledged() {
    is_needed(Guard::WitnessFirst, Scope::STAYS);
}

#[test]
fn names_in_doubt_must_not_be_served() {
    is_needed(Guard::DoubtIsHeld, Scope::STAYS);
}

#[test]
fn who_may_have_missed_moves_must_serve_nobody() {
    is_needed(Guard::Current, Scope::LEAVES);
}

#[test]
fn who_has_acknowledged_nothing_must_not_register_while_it_is_rewound() {
    is_needed(Guard::NewIsRefused, Scope::NEW);
}

#[test]
fn a_restore_must_not_be_resolved_while_a_data_plane_is_silent() {
    is_needed(Guard::AllAnswer, Scope::STAYS);
}

#[test]
fn a_restore_must_not_be_resolved_before_everybody_holds_what_is_in_doubt() {
    is_needed(Guard::Held, Scope::NEW);
}

#[test]
fn a_restore_must_not_be_resolved_before_its_settle_time() {
    is_needed(Guard::Settled, Scope::NEW);
}

#[test]
fn a_restore_must_not_be_resolved_for_another_fleet_than_the_one_that_holds() {
    is_needed(Guard::Fleet, Scope::NEW);
}

#[test]
fn what_was_decided_on_first_must_be_kept() {
    is_needed(Guard::FirstDecision, Scope::NEW.calls(2));
}

#[test]
fn of_two_decisions_at_once_one_must_count_as_a_whole() {
    is_needed(Guard::Proof, Scope::NEW.calls(2));
}
