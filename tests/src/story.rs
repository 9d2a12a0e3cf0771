//! What an operator and a user do, one step each: the words in which tests tell their stories.

use std::time::Duration;

use ferrypost_proto::v1::{
    DataPlane, GetMigrationRequest, GetPlacementRequest, ListDataPlanesRequest,
    ListDataPlanesResponse, MigrateRequest, Migration, Placement, RollbackRequest,
};
use tonic::Status;

use crate::dovecot::ID_FIELD;
use crate::imap::{Connect, ImapClient, ImapError};
use crate::wait::{Late, eventually};
use crate::world::{Limits, Operator};

/// How long a fact may take to come true on a busy machine.
pub const SOON: Duration = Duration::from_mins(1);

/// Times that make a story short where it waits for one of them to pass, and are long where a busy machine must do
/// something in time: no move fails, and no data plane counts as lost, for its speed.
pub fn short_limits() -> Limits {
    Limits {
        window: Duration::from_secs(20),
        hook: Duration::from_secs(15),
        settle: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
        // The least that etcd grants as it comes.
        leader_ttl: Duration::from_secs(2),
        drain: Duration::from_secs(1),
        close: Duration::from_secs(10),
        hold: Duration::from_secs(25),
    }
}

/// The request to move an account, which waits until the outcome is known.
pub fn move_to(account: &str, destination: &str) -> MigrateRequest {
    MigrateRequest {
        account: account.to_owned(),
        destination: destination.to_owned(),
        ..MigrateRequest::default()
    }
}

/// `Migrate`.
///
/// # Errors
/// Those of the call.
pub async fn migrate(operator: &Operator, request: MigrateRequest) -> Result<Migration, Status> {
    let answer = operator.migrations().migrate(request).await?.into_inner();
    answer
        .migration
        .ok_or_else(|| Status::data_loss("an answer without its migration"))
}

/// `Rollback` of an account to where it came from, waiting until the outcome is known.
///
/// # Errors
/// Those of the call.
pub async fn roll_back(operator: &Operator, account: &str) -> Result<Migration, Status> {
    let request = RollbackRequest {
        account: account.to_owned(),
        ..RollbackRequest::default()
    };
    let answer = operator.migrations().rollback(request).await?.into_inner();
    answer
        .migration
        .ok_or_else(|| Status::data_loss("an answer without its migration"))
}

/// `GetMigration`.
///
/// # Errors
/// Those of the call.
pub async fn migration(operator: &Operator, id: &str) -> Result<Migration, Status> {
    let request = GetMigrationRequest {
        migration_id: id.to_owned(),
    };
    let answer = operator.migrations().get_migration(request).await?;
    answer
        .into_inner()
        .migration
        .ok_or_else(|| Status::data_loss("an answer without its migration"))
}

/// Waits until a migration is as `holds` wants it.
///
/// # Errors
/// [`Late`] with the migration as it was last seen.
pub async fn migration_until(
    operator: &Operator,
    id: &str,
    what: &str,
    holds: impl Fn(&Migration) -> bool,
) -> Result<Migration, Late> {
    eventually(what, SOON, || async {
        let seen = migration(operator, id)
            .await
            .map_err(|status| status.to_string())?;
        if holds(&seen) {
            Ok(seen)
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
}

/// `GetPlacement`; not found for an account without a record.
///
/// # Errors
/// Those of the call.
pub async fn placement(operator: &Operator, account: &str) -> Result<Placement, Status> {
    let request = GetPlacementRequest {
        account: account.to_owned(),
    };
    let answer = operator.placements().get_placement(request).await?;
    answer
        .into_inner()
        .placement
        .ok_or_else(|| Status::data_loss("an answer without its placement"))
}

/// `ListDataPlanes`.
///
/// # Errors
/// Those of the call.
pub async fn data_planes(operator: &Operator) -> Result<ListDataPlanesResponse, Status> {
    let request = ListDataPlanesRequest {};
    let answer = operator.stats().list_data_planes(request).await?;
    Ok(answer.into_inner())
}

/// A registered data plane.
///
/// # Errors
/// Those of the call, and not found.
pub async fn data_plane(operator: &Operator, instance: &str) -> Result<DataPlane, Status> {
    data_planes(operator)
        .await?
        .data_planes
        .into_iter()
        .find(|plane| plane.instance == instance)
        .ok_or_else(|| Status::not_found(instance.to_owned()))
}

/// Connects and logs in.
///
/// # Errors
/// When it cannot connect, or the login is refused.
pub async fn session(
    connect: &Connect,
    login: &str,
    password: &str,
) -> Result<ImapClient, ImapError> {
    let mut client = connect.open().await?;
    client.login(login, password).await?.accepted()?;
    Ok(client)
}

/// The name of the server that a session is on.
///
/// # Errors
/// When the session has ended, or the server does not say.
pub async fn served_by(client: &mut ImapClient) -> Result<String, ImapError> {
    let name = client.id_field(ID_FIELD).await?;
    name.ok_or(ImapError::Protocol("a server without a name"))
}

/// Logs in, asks where that is, and logs out.
///
/// # Errors
/// As [`session`] and [`served_by`].
pub async fn landing(connect: &Connect, login: &str, password: &str) -> Result<String, ImapError> {
    let mut client = session(connect, login, password).await?;
    let server = served_by(&mut client).await?;
    client.logout().await?;
    Ok(server)
}

/// Reads until the server has closed the session, and gives back the text of its `* BYE`.
///
/// # Errors
/// When it does not close, or ends otherwise.
pub async fn closed(client: &mut ImapClient) -> Result<Option<String>, ImapError> {
    loop {
        match client.next_response_within(SOON).await {
            Ok(_) => {}
            Err(ImapError::Closed { bye }) => return Ok(bye),
            Err(other) => return Err(other),
        }
    }
}
