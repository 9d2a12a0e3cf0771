//! What is in a mailbox when the day begins: messages for POP3 to delete.
//!
//! `doveadm sync -1` has no memory of what both sides had. It finds a deletion by what is newer and on both sides; the
//! newest messages of all, deleted on one side alone, it takes for news from the other one and brings back. So only these
//! are deleted, and not the last of them.

use crate::history::{Action, Moment, Operation, Protocol, Recorder, Side};
use crate::imap::Connect;
use crate::world::World;

/// How many an account has.
const COUNT: usize = 25;

const NAME: &str = "seed-";

/// Puts them into accounts that live on the source.
pub(super) async fn sow(
    world: &World,
    accounts: &[String],
    recorder: &Recorder,
) -> anyhow::Result<()> {
    // Not every source can be reached without a data plane.
    let connect = world.imaps(0);
    for account in accounts {
        sow_one(&connect, account, world.password(), recorder).await?;
    }
    Ok(())
}

async fn sow_one(
    connect: &Connect,
    account: &str,
    password: &str,
    recorder: &Recorder,
) -> anyhow::Result<()> {
    let mut client = connect.open().await?;
    client.login(account, password).await?.accepted()?;
    for n in 1..=COUNT {
        let id = format!("{NAME}{n}");
        let message = format!("Message-ID: <{id}@ferrypost.test>\r\nSubject: {id}\r\n\r\n\r\n");
        let begun = Moment::now();
        let stored = client.append("INBOX", message.as_bytes()).await?;
        stored.accepted()?;
        recorder.operation(Operation {
            client: 0,
            protocol: Protocol::Imap,
            account: account.into(),
            data_plane: 0,
            server: Some(Side::Source),
            begun,
            ended: Moment::now(),
            action: Action::Append(id.into()),
        });
    }
    client.logout().await?;
    Ok(())
}

/// Whether a message may be deleted.
pub(super) fn may_go(id: &str) -> bool {
    let number = id.strip_prefix(NAME).and_then(|number| number.parse().ok());
    number.is_some_and(|number: usize| number < COUNT)
}
