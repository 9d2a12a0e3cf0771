//! Tells a data plane the keys of cookies.

use ferrypost_proto::{
    routing::v1::{CookieKey, CookieKeys, stream_response::Message as Told},
    store::v1 as stored,
};

use super::{
    Fleet,
    join::Joined,
    stream::{Outgoing, told},
};
use crate::{
    refusal::{Answer, Reason, Refusal},
    store::Rev,
};

/// The first version of the contract in which they are told.
const SINCE: u32 = 3;

impl Fleet {
    /// Tells them now and whenever they change. Under `rewound` too: they route nobody, and a data plane that has
    /// restarted has none. Ends only with an error.
    pub(super) async fn tell_cookie_keys(
        &self,
        joined: &Joined,
        outgoing: &Outgoing,
    ) -> Answer<()> {
        if joined.contract < SINCE {
            return std::future::pending().await;
        }
        let mut changed = self.mirror().changed();
        let mut said: Option<Rev> = None;
        loop {
            changed.borrow_and_update();
            let state = self.mirror().read();
            if let Some(keys) = state.cookie_keys()
                && said.replace(keys.revision) != Some(keys.revision)
            {
                let message = Told::CookieKeys(wire(&keys.value));
                let gone = |_| Refusal::new(Reason::DeadlineExceeded, "the data plane has gone");
                outgoing.send(Ok(told(message))).await.map_err(gone)?;
            }
            changed
                .changed()
                .await
                .map_err(|_| Refusal::new(Reason::ShuttingDown, "the replica is stopping"))?;
        }
    }
}

fn wire(stored: &stored::CookieKeys) -> CookieKeys {
    let key = |key: &stored::CookieKey| CookieKey {
        id: key.id,
        key: key.key.clone(),
    };
    CookieKeys {
        keys: stored.keys.iter().map(key).collect(),
        sealing: stored.sealing,
    }
}
