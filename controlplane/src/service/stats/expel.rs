//! Ending the registration of a data plane that will never come back.

use ferrypost_proto::{BootId, InstanceId, store::v1 as stored, types::IdError, v1};

use super::{FleetAnswer, StatsUseCases};
use crate::{
    domain::commit::change_fleet,
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    service::{Step, migration::check_reason},
    store::{Txn, keys, value::Stored},
    wall_clock,
};

/// Which data plane to expel.
#[derive(Debug, Clone)]
pub struct ExpelOrder {
    /// Its name.
    pub instance: String,
    /// The life of it that is meant.
    pub boot: String,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub requested_by: String,
}

impl StatsUseCases {
    /// Ends the registration of a data plane on an operator's word.
    ///
    /// # Errors
    /// [`Reason::DataPlaneNotFound`]; [`Reason::BootMismatch`] when a successor would be hit.
    pub async fn expel(&self, order: &ExpelOrder) -> Answer<FleetAnswer<v1::ExpelledDataPlane>> {
        if order.reason.is_empty() {
            return Err(Refusal::required("reason"));
        }
        check_reason(&order.reason)?;
        let instance = identifier("instance", &order.instance, InstanceId::parse)?;
        let boot = identifier("boot", &order.boot, BootId::parse)?;
        let (state, expelled) = self
            .core
            .transact(|state| expulsion(state, &instance, &boot, order))
            .await?;
        tracing::warn!(%instance, %boot, by = order.requested_by, reason = order.reason,
            "a data plane was expelled");
        Ok(FleetAnswer {
            state,
            unreachable: Vec::new(),
            answer: expelled,
        })
    }

    /// Boots that were expelled.
    pub fn expelled(&self, state: &State) -> Vec<v1::ExpelledDataPlane> {
        state
            .expelled()
            .iter()
            .map(|((instance, boot), expelled)| shown_expelled(instance, boot, &expelled.value))
            .collect()
    }
}

fn identifier<T>(
    field: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Answer<T> {
    if text.is_empty() {
        return Err(Refusal::required(field));
    }
    parse(text).map_err(|error| Refusal::invalid(field, error))
}

/// The operator's word goes into the store together with the end of the registration.
fn expulsion(
    state: &State,
    instance: &InstanceId,
    boot: &BootId,
    order: &ExpelOrder,
) -> Answer<Step<v1::ExpelledDataPlane>> {
    let said_before = state.expelled().get(&(instance.clone(), boot.clone()));
    if let Some(expelled) = said_before {
        return Ok(Step::Done(shown_expelled(instance, boot, &expelled.value)));
    }
    let Some(registration) = state.registrations().get(instance) else {
        return Err(Refusal::new(
            Reason::DataPlaneNotFound,
            format!("no data plane is registered as {instance}"),
        )
        .with("instance", instance));
    };
    if registration.value.boot != boot.as_str() {
        return Err(Refusal::new(
            Reason::BootMismatch,
            format!(
                "{instance} is registered with boot {}, not {boot}",
                registration.value.boot
            ),
        )
        .with("instance", instance)
        .with("registered", &registration.value.boot));
    }
    let expelled = stored::Expelled {
        expelled_by: order.requested_by.clone(),
        expelled_at: Some(wall_clock::now()),
        reason: order.reason.clone(),
        ..stored::Expelled::default()
    };
    let shown = shown_expelled(instance, boot, &expelled);
    let key = keys::registration(instance);
    let txn = Txn::new()
        .at(key.clone(), registration.revision)
        .delete(key)
        .put(
            keys::expelled(instance, boot),
            Stored::new(expelled).bytes(),
        );
    // Whoever asks for the place may be serving. A restored store is not resolved before it has registered.
    let txn = match state.rewound() {
        Some(_) => txn,
        None => txn.delete(keys::claim(instance)),
    };
    Ok(Step::Write(change_fleet(txn, state.fleet()), shown))
}

fn shown_expelled(
    instance: &InstanceId,
    boot: &BootId,
    expelled: &stored::Expelled,
) -> v1::ExpelledDataPlane {
    v1::ExpelledDataPlane {
        instance: instance.as_str().to_owned(),
        boot: boot.as_str().to_owned(),
        expelled_by: expelled.expelled_by.clone(),
        expelled_at: expelled.expelled_at,
        reason: expelled.reason.clone(),
    }
}
