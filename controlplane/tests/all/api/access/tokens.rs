//! Bearer tokens.

use tonic::Code;

use super::{ADMIN, call, channel, guarded, reason_of, start};
use crate::api::world::eventually;

#[tokio::test]
async fn a_token_is_changed_without_a_restart() {
    let (bound, directory) = guarded("", "").await;
    let channel = channel(bound.operators()).await;
    let path = "/ferrypost.v1.StatsService/ExpelDataPlane";
    let new = "another-token-0123456789abcdef0123456789";
    let refused = call(&channel, path, Some(new)).await.expect_err("not yet");
    assert_eq!(refused.code(), Code::Unauthenticated);
    std::fs::write(directory.path().join("ada"), new).expect("written");
    eventually(async || {
        let answer = call(&channel, path, Some(new)).await.err()?;
        (reason_of(&answer) == "FIELD_REQUIRED").then_some(())
    })
    .await;
    let old = call(&channel, path, Some(ADMIN))
        .await
        .expect_err("no more");
    assert_eq!(old.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_short_token_is_refused_at_start() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("short"), "tooshort").expect("written");
    let error = start(&directory, "", "token_file = \"short\"")
        .await
        .expect_err("refused");
    let said = format!("{error:#}");
    assert!(said.contains("at least 32"), "{said}");
}
