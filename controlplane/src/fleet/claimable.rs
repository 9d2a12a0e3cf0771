//! Which instance id a stream may claim.

use ferrypost_proto::InstanceId;

use crate::refusal::{Answer, Reason, Refusal};

/// The instance ids that a caller may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimable {
    /// Any: whoever may open the stream is believed.
    Any,
    /// Those that its certificate names.
    Named(Vec<String>),
}

impl Claimable {
    /// Refuses an id that is not the caller's.
    pub(super) fn expect(&self, instance: &InstanceId) -> Answer<()> {
        match self {
            Self::Any => Ok(()),
            Self::Named(names) if names.iter().any(|name| name == instance.as_str()) => Ok(()),
            Self::Named(names) => {
                tracing::warn!(%instance, ?names, "a data plane claims another's instance id");
                Err(Refusal::new(
                    Reason::IdentityMismatch,
                    format!(
                        "the client certificate is not that of {instance}: with data_planes.identity = \
                         \"certificate\" one of its DNS names must be the instance id"
                    ),
                )
                .with("instance", instance))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_claimed_by_its_own_certificate_alone() {
        let named = Claimable::Named(vec!["dp-1".into(), "dp-1.mail".into(), "*.mail".into()]);
        let claims = |id: &str| named.expect(&InstanceId::parse(id).expect("an instance id"));
        assert_eq!(claims("dp-1"), Ok(()));
        assert_eq!(claims("dp-1.mail"), Ok(()));
        for other in ["dp-2", "dp-1.m", "dp-2.mail", "dp"] {
            let refused = claims(other).expect_err("another's");
            assert_eq!(refused.reason, Reason::IdentityMismatch, "{other}");
        }
        let nobody = Claimable::Named(Vec::new());
        assert!(
            nobody
                .expect(&InstanceId::parse("dp-1").expect("an id"))
                .is_err()
        );
    }
}
