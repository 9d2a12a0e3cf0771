//! SMTP between mail systems, where it differs from LMTP: how it greets, one answer about a message, messages in chunks,
//! STARTTLS that nobody has to use.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

#[expect(
    dead_code,
    reason = "shared with the tests of LMTP and the fuzz targets"
)]
#[path = "../delivery/mod.rs"]
mod delivery;
#[expect(dead_code, reason = "shared with the tables of the other protocols")]
#[path = "../sloppy/mod.rs"]
mod sloppy;

use delivery::{LIMITS, Session, deliver_smtp, serve_smtp};
use ferrypost_wire::{Channel, ClientViolation};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const BEGINNING: &str = "EHLO mx.example.org\r\nMAIL FROM:<from@example.org>\r\n";

/// A session that goes on like this, whatever the pieces that it comes in.
fn session(commands: &str) -> Session {
    let input = format!("{BEGINNING}{commands}");
    let whole = serve_smtp(Channel::Secure, input.as_bytes(), &[1000]);
    assert_eq!(whole, serve_smtp(Channel::Secure, input.as_bytes(), &[1]));
    whole
}

/// What is heard behind the answers to EHLO and MAIL.
fn heard(commands: &str) -> Vec<String> {
    let session = session(commands);
    let sender = "250 2.1.0 The sender is taken.\r\n";
    let (_, behind) = session.heard.split_once(sender).unwrap();
    behind.lines().map(str::to_owned).collect()
}

fn codes(commands: &str) -> Vec<String> {
    let lines = heard(commands).into_iter();
    lines.map(|line| line.chars().take(9).collect()).collect()
}

/// A recipient of the table's, for whom the server takes messages.
const USER: &str = "user1@example.org";

/// What we take of sloppy mail systems, beside what Postfix takes.
#[test]
fn sloppy_inputs_are_answered_as_by_postfix_unless_a_rule_says_otherwise() {
    let (cases, rules) = sloppy::table(include_str!("../leniency/smtp.txt"));
    assert!(cases.len() >= 100, "{} rows", cases.len());
    let end = sloppy::submission::END;
    for case in &cases {
        let input = [&sloppy::octets(case.input, USER, "")[..], end].concat();
        for sizes in [&[1000][..], &[1]] {
            let session = serve_smtp(Channel::Secure, &input, sizes);
            let (_, heard) = session.heard.split_once("\r\n").unwrap();
            let is_over = session.is_over;
            let ours = sloppy::submission::summary(heard.as_bytes(), is_over);
            assert_eq!(ours, case.by("ours"), "{}", case.input);
        }
        let codes = sloppy::submission::codes;
        let differs = codes(case.by("ours")) != codes(case.by("postfix"));
        assert_eq!(differs, !case.rule.is_empty(), "{}", case.input);
        assert!(!differs || rules.contains(&case.rule), "{}", case.rule);
    }
    for rule in rules {
        assert!(cases.iter().any(|case| case.rule == rule), "{rule}");
    }
}

const YES: &str = "250 2.0.0 Yes.";
const TAKEN: &str = "250 2.0.0 The chunk is taken.";

#[test]
fn a_dialogue_word_for_word() {
    let input = "EHLO mx.example.org\r\nMAIL FROM:<from@example.org> SIZE=100\r\nRCPT TO:<a@b>\r\nRCPT TO:<held@b>\r\n\
        RCPT TO:<nobody@b>\r\nRCPT TO:<c@b>\r\nDATA\r\nHi.\r\n.\r\nVRFY a\r\nNOOP\r\nQUIT\r\n";
    let session = serve_smtp(Channel::Clear, input.as_bytes(), &[7]);
    assert_eq!(
        session.heard,
        "220 ferrypost ESMTP is ready.\r\n\
         250-ferrypost\r\n\
         250-SIZE 1000\r\n\
         250-8BITMIME\r\n\
         250-SMTPUTF8\r\n\
         250-DSN\r\n\
         250-PIPELINING\r\n\
         250-ENHANCEDSTATUSCODES\r\n\
         250-XFERRYPOST\r\n\
         250-STARTTLS\r\n\
         250 CHUNKING\r\n\
         250 2.1.0 The sender is taken.\r\n\
         250 2.0.0 Yes.\r\n\
         451 4.2.1 This mailbox is being moved, try again.\r\n\
         550 5.1.1 There is no such mailbox.\r\n\
         250 2.0.0 Yes.\r\n\
         354 Send the message, and end it with CRLF.CRLF.\r\n\
         250 2.0.0 Yes.\r\n\
         252 2.0.0 That is found out by sending something.\r\n\
         250 2.0.0 Done.\r\n\
         221 2.0.0 Goodbye.\r\n"
    );
    assert_eq!(
        (&*session.messages, &*session.answers),
        (&["Hi.\r\n".to_owned()][..], &[1][..])
    );
}

#[test]
fn whoever_says_helo_is_offered_nothing_and_served_all_the_same() {
    let input = b"HELO mx\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n";
    let session = serve_smtp(Channel::Secure, input, &[1]);
    let (_, behind) = session.heard.split_once("ready.\r\n").unwrap();
    assert_eq!(
        behind,
        "250 ferrypost\r\n250 2.1.0 The sender is taken.\r\n250 2.0.0 Yes.\r\n"
    );
}

#[test]
fn there_is_no_login_no_lmtp_and_no_word_for_proxies() {
    assert_eq!(
        codes("AUTH PLAIN\r\nLHLO x\r\nXCLIENT ADDR=192.0.2.1\r\nXFORWARD NAME=x\r\n"),
        ["500 5.5.1", "500 5.5.1", "550 5.7.0", "550 5.7.0"]
    );
}

#[test]
fn starttls_is_offered_only_where_there_is_a_certificate_and_nobody_has_to_use_it() {
    let without = serve_smtp(Channel::Secure, b"EHLO x\r\nSTARTTLS\r\n", &[1]);
    assert!(!without.heard.contains("STARTTLS"));
    assert!(
        without
            .heard
            .ends_with("502 5.5.1 TLS is on already, or not offered.\r\n")
    );
    let input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nRSET\r\nSTARTTLS\r\nRCPT TO:<a@b>\r\n";
    let with = serve_smtp(Channel::Clear, input, &[1]);
    let behind = "503 5.5.1 This command has no place here.\r\n\
        250 2.0.0 Done.\r\n\
        220 2.0.0 Begin TLS now.\r\n\
        503 5.5.1 This command has no place here.\r\n";
    assert!(
        with.heard.ends_with(behind),
        "no message goes from clear to TLS: {}",
        with.heard
    );
}

#[test]
fn chunks_go_on_as_if_they_had_come_behind_data() {
    let session = session(
        "RCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 7\r\na\r\n.\r\n.BDAT 0\r\nNOOP\r\nBDAT 3 last\r\n\r\nxQUIT\r\n",
    );
    assert_eq!(session.messages, ["a\r\n..\r\n..\r\nx\r\n"]);
    assert_eq!(session.answers, [1]);
    let (_, behind) = session.heard.split_once("taken.\r\n").unwrap();
    let lines: Vec<_> = behind.lines().collect();
    assert_eq!(
        lines,
        [
            YES,
            YES,
            TAKEN,
            TAKEN,
            "250 2.0.0 Done.",
            YES,
            "221 2.0.0 Goodbye."
        ]
    );
}

#[test]
fn a_chunk_for_nobody_is_read_over_before_it_is_refused() {
    assert_eq!(
        codes("BDAT 6\r\nQUIT\r\nRCPT TO:<no@b>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"),
        ["503 5.5.1", "550 5.1.1", "503 5.5.1", "250 2.0.0"]
    );
}

#[test]
fn between_chunks_nothing_else_of_a_message_has_a_place() {
    let session = session(
        "RCPT TO:<a@b>\r\nBDAT 3\r\nx\r\nRCPT TO:<c@d>\r\nMAIL FROM:<>\r\nDATA\r\nBDAT 0 LAST\r\n",
    );
    let codes: Vec<_> = session
        .heard
        .lines()
        .rev()
        .take(5)
        .map(|it| &it[..3])
        .collect();
    assert_eq!(codes, ["250", "503", "503", "503", "250"]);
    assert_eq!(session.messages, ["x\r\n"]);
}

#[test]
fn what_is_taken_back_between_chunks_has_no_answer_and_the_next_message_comes() {
    for (taken_back, answer) in [("RSET", "250 2.0.0"), ("EHLO x", "250 CHUNK")] {
        let session = session(&format!(
            "RCPT TO:<a@b>\r\nBDAT 3\r\nx\r\n{taken_back}\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 3 LAST\r\ny\r\n"
        ));
        assert_eq!(session.messages, ["y\r\n"]);
        assert!(session.heard.contains(&format!("{TAKEN}\r\n250")));
        assert!(session.heard.contains(answer));
    }
    let left = session("RCPT TO:<a@b>\r\nBDAT 3\r\nx\r\nQUIT\r\nNOOP\r\n");
    assert!(left.is_over && left.messages.is_empty());
    assert_eq!(left.left, b"NOOP\r\n");
}

#[test]
fn a_size_that_is_none_ends_the_session_since_what_follows_may_be_anything() {
    for size in [
        "",
        "+3",
        "-1",
        "3 FIRST",
        "3 LAST LAST",
        "x",
        "99999999999999999999",
    ] {
        let session = session(&format!("RCPT TO:<a@b>\r\nBDAT {size}\r\nQUIT\r\n"));
        assert!(session.is_over, "{size}");
        assert_eq!(session.left, b"QUIT\r\n", "{size}");
    }
}

#[test]
fn no_variant_of_an_end_of_data_smuggles_a_message_whichever_way_it_comes() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r\r\n",
        "\r\n.\rMAIL",
    ] {
        let smuggled = "MAIL FROM:<root@example.org>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\n";
        let body = format!("x{end}{smuggled}");
        for message in [
            format!("DATA\r\n{body}"),
            format!("BDAT {} LAST\r\n{body}", body.len()),
        ] {
            let input = format!("{BEGINNING}RCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n{message}");
            for sizes in [&[1000][..], &[1]] {
                let session = serve_smtp(Channel::Secure, input.as_bytes(), sizes);
                assert!(session.smuggled && session.is_over, "{end:?}");
                let refusal = "554 5.6.0 There is a bare CR or LF in the message.\r\n";
                assert_eq!(session.heard.matches(refusal).count(), 1, "{end:?}");
                assert!(session.heard.ends_with(refusal), "{end:?}");
            }
        }
    }
}

#[test]
fn a_message_of_many_chunks_runs_into_no_limit_and_empty_ones_do() {
    let chunks = "BDAT 1\r\nx".repeat(100);
    let long = session(&format!("RCPT TO:<a@b>\r\n{chunks}BDAT 0 LAST\r\n"));
    assert_eq!(
        (long.violation, &*long.messages),
        (None, &["x".repeat(100) + "\r\n"][..])
    );
    let empty = "BDAT 0\r\n".repeat(LIMITS.max_commands as usize + 1);
    let endless = session(&format!("RCPT TO:<a@b>\r\n{empty}"));
    assert!(endless.is_over && endless.messages.is_empty());
    assert!(
        endless
            .heard
            .ends_with("421 4.7.0 Too many commands without a recipient.\r\n")
    );
}

#[test]
fn a_browser_is_sent_away() {
    let session = serve_smtp(Channel::Secure, b"POST / HTTP/1.1\r\n", &[1]);
    assert_eq!(session.violation, Some(ClientViolation::ForeignProtocol));
}

#[test]
fn a_server_gives_one_word_on_a_message_for_all_its_recipients() {
    let said = b"250 sender\r\n250 first\r\n250 second\r\n354 go\r\n250 2.0.0 queued\r\n";
    let (words, sent, left) = deliver_smtp("PIPELINING|SIZE 100|8BITMIME", said, &[3]);
    assert_eq!(
        sent,
        "MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\nmessage\r\n.\r\n"
    );
    assert_eq!(
        words
            .iter()
            .filter(|word| word.starts_with("Delivered"))
            .count(),
        1
    );
    assert!(left.is_empty());
    let (words, ..) = deliver_smtp(
        "PIPELINING",
        &[said, &b"250 another\r\n"[..]].concat(),
        &[3],
    );
    let last = words.last().unwrap();
    assert!(
        !last.starts_with("Delivered"),
        "nobody asked for more: {last}"
    );
}

const COMMANDS: &[&str] = &[
    "EHLO x\r\n",
    "HELO x\r\n",
    "MAIL FROM:<a@b>\r\n",
    "RCPT TO:<a@b>\r\n",
    "RCPT TO:<held@b>\r\n",
    "DATA\r\n",
    "x\r\n",
    ".",
    "\r\n.\r\n",
    "\r",
    "\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "BDAT 0\r\n",
    "BDAT 3\r\n.\r\n",
    "BDAT 3 LAST\r\nx\r\n",
    "BDAT 7\r\n",
    "BDAT 2 LAST\r\n",
];

const REPLIES: &[&str] = &[
    "250 ok\r\n",
    "250-a\r\n",
    "354 go\r\n",
    "451 4.2.1 later\r\n",
    "550 5.1.1 no\r\n",
    "421 bye\r\n",
    "221 bye\r\n",
    " ",
    "\n",
];

fn saying(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        12 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
        1 => (0..400usize).prop_map(|length| vec![b'x'; length]),
    ];
    vec(word, 0..30).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_mail_system_breaks_the_rules(
        is_clear in any::<bool>(),
        input in saying(COMMANDS),
        sizes in vec(1..20usize, 1..10),
    ) {
        let channel = if is_clear { Channel::Clear } else { Channel::Secure };
        // STARTTLS looks at what has come already, so pieces matter there by design.
        let upgrades = input.to_ascii_uppercase().windows(8).any(|it| it == b"STARTTLS");
        if !(is_clear && upgrades) {
            let input = [b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", &*input].concat();
            delivery::front(serve_smtp, channel, &input, &sizes);
        }
    }

    #[test]
    fn no_server_breaks_the_rules(
        extensions in select(&["PIPELINING|DSN", "SIZE 1"][..]),
        said in saying(REPLIES),
        sizes in vec(1..20usize, 1..10),
    ) {
        delivery::back(deliver_smtp, extensions, &said, &sizes);
    }
}
