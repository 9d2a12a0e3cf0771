//! Servers that do not take clients to be announced as the routing configuration says, and those whose trouble is
//! another one.

use super::*;

/// The same with another announcement of clients.
fn announcing(mut endpoint: v1::Endpoint, announcement: v1::Announcement) -> v1::Endpoint {
    endpoint.announcement = announcement.into();
    endpoint
}

const WAYS: [Way; 3] = [Way::Implicit, Way::StartTls, Way::InClear];

fn wanting_a_header() -> Manners {
    Manners {
        proxy: true,
        ..Manners::default()
    }
}

#[tokio::test]
async fn a_server_that_expects_no_proxy_header_is_told_apart_however_it_is_reached() {
    for way in WAYS {
        let endpoint = start(way, Manners::default());
        let report = visited(announcing(endpoint, v1::Announcement::ProxyV2)).await;
        assert_eq!(report.problem, Some(Problem::ProxyUnexpected), "{report:?}");
    }
}

#[tokio::test]
async fn a_server_that_waits_for_a_proxy_header_is_told_apart_however_it_is_reached() {
    for way in WAYS {
        for announcement in [v1::Announcement::None, v1::Announcement::ImapId] {
            let endpoint = start(way, wanting_a_header());
            let report = visited(announcing(endpoint, announcement)).await;
            assert_eq!(report.problem, Some(Problem::ProxyMissing), "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_tls_failure_is_not_laid_at_the_headers_door() {
    for proxy in [false, true] {
        let manners = Manners {
            proxy,
            ..Manners::default()
        };
        let in_clear = start(Way::InClear, manners.clone());
        let under_tls = v1::Endpoint {
            port: in_clear.port,
            ..start(Way::Implicit, manners)
        };
        let report = visited(under_tls).await;
        assert_eq!(report.problem, Some(Problem::TlsFailed), "{report:?}");
    }
    // A fatal alert: handshake_failure.
    let alert = Manners {
        greeting: vec![21, 3, 3, 0, 2, 2, 40],
        ..Manners::default()
    };
    let in_clear = start(Way::InClear, alert);
    let old = v1::Endpoint {
        port: in_clear.port,
        ..start(Way::Implicit, Manners::default())
    };
    let report = visited(old).await;
    assert_eq!(report.problem, Some(Problem::TlsTooOld), "{report:?}");
}

#[tokio::test]
async fn a_server_that_does_not_read_the_announcement_is_reachable_and_it_is_said() {
    let by_id = |endpoint| announcing(endpoint, v1::Announcement::ImapId);
    let stalwart = || greeting("* OK Stalwart IMAP4rev2 at your service.\r\n");
    let unread = Some(Caution::AnnouncementUnread);
    for (endpoint, caution) in [
        // LOGINDISABLED in clear: whom Dovecot trusts is secured already.
        (by_id(start(Way::StartTls, Manners::default())), unread),
        (by_id(start(Way::Implicit, stalwart())), unread),
        (by_id(start(Way::Implicit, Manners::default())), None),
        (start(Way::StartTls, Manners::default()), None),
        (start(Way::Implicit, stalwart()), None),
    ] {
        let report = visited(endpoint).await;
        assert_eq!(
            (report.problem, report.caution),
            (None, caution),
            "{report:?}"
        );
    }
    let backends = Backends::new();
    backends.retarget([target("old")]);
    let found = ProbeReport {
        caution: unread,
        ..report("IMAP4rev1", None)
    };
    backends.record(&target("old"), found);
    let told = &backends.endpoints()[0];
    assert!(told.reachable);
    assert_eq!(told.problem, "announcement_unread");
    let facts = told.facts.as_ref().expect("what was seen");
    assert_eq!(
        (&*facts.tls, &*facts.capabilities),
        ("unknown", &["IMAP4rev1".to_owned()][..])
    );
}
