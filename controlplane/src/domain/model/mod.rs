//! The fence as a small model, searched exhaustively: two data planes that start, die, restart and are
//! expelled, tables that lag, reports that are lost, late or doubled, leaders that die or freeze at any step, for
//! as long as they like, transactions whose outcome nobody knows, and a hook.
//!
//! The decisions are those of [`next`](super::migration::next). What the model adds is everything around
//! them that could go wrong. With all guards no reachable state breaks a promise; with any one of them
//! taken away the search finds one that does, which shows both that the guard is needed and that the model
//! can see.
//!
//! One freedom is greater than in reality: a data plane may start with a table that is one write of the
//! record behind its registration. The stream forbids that (rule 9); the guards must not lean on it.

pub(crate) mod search;
mod steps;
mod world;

use ferrypost_proto::Phase;

use search::Model;
use steps::Steps;
use world::{Guard, Scope, World};

/// A move, in a scope, with all guards or without one.
struct Move {
    scope: Scope,
    without: Option<Guard>,
}

impl Model for Move {
    type World = World;

    fn first(&self) -> World {
        World::new(self.scope)
    }

    fn steps(&self, from: &World) -> Vec<World> {
        Steps::of(from, self.scope, self.without)
    }

    fn names(&self, from: &World) -> Vec<String> {
        Steps::names(from, self.scope, self.without)
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        world.broken()
    }

    fn is_goal(&self, world: &World) -> bool {
        world.record().phase == Phase::Flipped
    }
}

fn holds(scope: Scope) {
    let without = None;
    search::holds(&Move { scope, without });
}

/// Without this guard something goes wrong in this scope.
fn is_needed(guard: Guard, scope: Scope) {
    let without = Some(guard);
    search::breaks(&Move { scope, without }, guard);
}

#[test]
fn no_server_is_served_on_the_wrong_side_of_the_flip() {
    holds(Scope::FLEET);
}

#[test]
fn a_write_of_unknown_outcome_breaks_nothing() {
    holds(Scope::WRITES);
}

#[test]
fn no_hook_runs_beside_another_or_beside_clients() {
    holds(Scope::LEADERS);
}

#[test]
fn leader_after_leader_that_dies_breaks_nothing() {
    holds(Scope::SUCCESSION);
}

#[test]
fn a_change_of_leader_beside_a_death_of_a_data_plane_breaks_nothing() {
    holds(Scope::TAKEOVER);
}

#[test]
fn a_flip_needs_every_report() {
    is_needed(Guard::Drained, Scope::FLEET);
}

#[test]
fn a_flip_needs_the_fleet_to_be_unchanged() {
    is_needed(Guard::Fleet, Scope::FLEET);
}

#[test]
fn a_report_counts_for_its_boot_alone() {
    is_needed(Guard::Boot, Scope::FLEET);
}

#[test]
fn an_end_that_nobody_saw_needs_its_settle_time() {
    is_needed(Guard::Settled, Scope::FLEET);
}

#[test]
fn a_login_must_be_resolved_again_before_it_is_relayed() {
    is_needed(Guard::ResolveAgain, Scope::FLEET);
}

#[test]
fn a_write_needs_the_epoch_that_was_read() {
    is_needed(Guard::Epoch, Scope::WRITES);
}

#[test]
fn a_write_needs_the_leader_that_decided_it() {
    is_needed(Guard::Token, Scope::LEADERS);
}

#[test]
fn the_next_fence_must_wait_out_the_hook_of_the_old_leader() {
    is_needed(Guard::HookDeadline, Scope::LEADERS);
}

#[test]
fn a_fence_that_another_leader_began_must_be_withdrawn() {
    is_needed(Guard::OwnFence, Scope::LEADERS);
}

#[test]
fn what_has_flipped_must_not_be_withdrawn() {
    is_needed(Guard::NotAfterFlip, Scope::TAKEOVER);
}
