//! Delivery, as mail systems and servers speak it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

#[expect(dead_code, reason = "shared with the tests of SMTP")]
#[path = "../delivery/mod.rs"]
mod delivery;
#[expect(dead_code, reason = "shared with the tables of the other protocols")]
#[path = "../sloppy/mod.rs"]
mod sloppy;

use delivery::{LIMITS, deliver, envelope, envelope_for, open, serve, serve_for, told};
use ferrypost_wire::lmtp::{Delivery, LmtpOpening, Reason};
use ferrypost_wire::{
    BackLimits, BackSettings, BackendViolation, Capabilities as _, Channel, ClientFacts,
    ClientViolation, HopLimit, Introduction, Keywords, NegotiateStep, Open as _, SessionReference,
    WireBuf,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What we take of sloppy mail systems, beside what Dovecot takes.
#[test]
fn sloppy_inputs_are_answered_as_by_dovecot_unless_a_rule_says_otherwise() {
    let (cases, rules) = sloppy::table(include_str!("../leniency/lmtp.txt"));
    let dovecot =
        Keywords::from_items(["8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES", "PIPELINING"]);
    for case in &cases {
        let input = [&sloppy::octets(case.input, "a@b", "")[..], b"XZZQ\r\n"].concat();
        for sizes in [&[1000][..], &[1]] {
            let session = serve_for(&dovecot, Channel::Secure, &input, sizes);
            let (_, heard) = session.heard.split_once("\r\n").unwrap();
            let ours = sloppy::submission::summary(heard.as_bytes(), session.is_over);
            assert_eq!(ours, case.by("ours"), "{}", case.input);
        }
        let codes = sloppy::submission::codes;
        let differs = codes(case.by("ours")) != codes(case.by("dovecot"));
        assert_eq!(differs, !case.rule.is_empty(), "{}", case.input);
        assert!(!differs || rules.contains(&case.rule), "{}", case.rule);
    }
    for rule in rules {
        assert!(cases.iter().any(|case| case.rule == rule), "{rule}");
    }
}

const BEGINNING: &str = "LHLO mx.example.org\r\nMAIL FROM:<from@example.org>\r\n";

/// What is heard behind the answers to LHLO and MAIL.
fn heard(commands: &str) -> Vec<String> {
    let input = format!("{BEGINNING}{commands}");
    let session = serve(Channel::Secure, input.as_bytes(), &[1000]);
    assert_eq!(session, serve(Channel::Secure, input.as_bytes(), &[1]));
    let sender = "250 2.1.0 The sender is taken.\r\n";
    let (_, behind) = session.heard.split_once(sender).unwrap();
    behind.lines().map(str::to_owned).collect()
}

fn codes(commands: &str) -> Vec<String> {
    let lines = heard(commands).into_iter();
    lines
        .map(|line| line.chars().take(9).collect::<String>().trim().to_owned())
        .collect()
}

#[test]
fn every_accepted_recipient_has_an_answer_of_its_own_in_order_and_a_refused_one_has_none() {
    let pipelined = "RCPT TO:<alice@example.org>\r\nRCPT TO:<nobody@example.org>\r\n\
        RCPT TO:<held@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nHi.\r\n.\r\nQUIT\r\n";
    assert_eq!(
        heard(pipelined),
        [
            "250 2.0.0 Yes.",
            "550 5.1.1 There is no such mailbox.",
            "451 4.2.1 This mailbox is being moved, try again.",
            "250 2.0.0 Yes.",
            "354 Send the message, and end it with CRLF.CRLF.",
            "250 2.0.0 Yes.",
            "250 2.0.0 Yes.",
            "221 2.0.0 Goodbye.",
        ]
    );
}

#[test]
fn the_octets_of_a_message_are_passed_on_as_they_are() {
    let input = format!(
        "{BEGINNING}RCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.x\r\n\u{e4}\0\r\n.\r\nNOOP\r\n"
    );
    let session = serve(Channel::Secure, input.as_bytes(), &[3]);
    assert_eq!(
        session.messages,
        ["Subject: x\r\n\r\n..dot\r\n.x\r\n\u{e4}\0\r\n"]
    );
    assert!(
        session
            .heard
            .ends_with("250 2.0.0 Yes.\r\n250 2.0.0 Done.\r\n")
    );
}

#[test]
fn a_message_is_for_somebody() {
    assert_eq!(
        codes("DATA\r\nRCPT TO:<no@b>\r\nDATA\r\n"),
        ["503 5.5.1", "550 5.1.1", "503 5.5.1"]
    );
}

#[test]
fn commands_have_an_order() {
    assert_eq!(
        codes("MAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@b>\r\n"),
        ["503 5.5.1", "250 2.0.0", "503 5.5.1"]
    );
    // LHLO forgets a transaction.
    let lines = heard("RCPT TO:<a@b>\r\nLHLO x\r\nDATA\r\n");
    assert_eq!(
        lines.last().unwrap(),
        "503 5.5.1 This command has no place here."
    );
}

#[test]
fn only_what_every_server_takes_is_taken() {
    for (parameter, code) in [
        ("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b", "250 2.0.0"),
        ("XRCPTFORWARD=eA==", "555 5.5.4"),
        ("NOTIFY", "555 5.5.4"),
        ("SIZE=1", "555 5.5.4"),
    ] {
        assert_eq!(
            codes(&format!("RCPT TO:<a@b> {parameter}\r\n")),
            [code],
            "{parameter}"
        );
    }
    for (parameter, code) in [
        ("SIZE=1000 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=x", "250"),
        ("SIZE=1001", "552"),
        ("SIZE=99999999999999999999999", "552"),
        ("XFERRYPOST=2", "250"),
        ("XFERRYPOST=1", "451"),
        ("XFERRYPOST=x", "555"),
        ("SIZE=+1", "555"),
        ("BODY=BINARYMIME", "555"),
        ("AUTH=<>", "555"),
        ("SMTPUTF8=1", "555"),
    ] {
        let input = format!("LHLO x\r\nMAIL FROM:<> {parameter}\r\n");
        let session = serve(Channel::Secure, input.as_bytes(), &[7]);
        assert_eq!(
            session.heard.lines().last().map(|it| &it[..3]),
            Some(code),
            "{parameter}"
        );
    }
}

#[test]
fn what_a_proxy_knows_of_a_recipient_goes_to_servers_that_take_it() {
    let dovecot = Keywords::from_items(["PIPELINING", "XRCPTFORWARD"]);
    let command = "RCPT TO:<a@b> XRCPTFORWARD=x+3Dy";
    let input = format!("LHLO x\r\nMAIL FROM:<>\r\n{command}\r\n");
    let session = serve_for(&dovecot, Channel::Secure, input.as_bytes(), &[9]);
    assert!(session.heard.contains("-XRCPTFORWARD\r\n"));
    assert!(session.heard.ends_with("250 2.0.0 Yes.\r\n"));
    let to = envelope_for(&dovecot, command);
    for (extensions, sent) in [
        ("PIPELINING|XRCPTFORWARD", command),
        ("PIPELINING|DSN", "RCPT TO:<a@b>"),
    ] {
        let mut out = Vec::new();
        open(extensions).recipient(&to, &mut out);
        assert_eq!(out, format!("{sent}\r\n").into_bytes());
    }
}

#[test]
fn trust_words_are_for_proxies() {
    assert_eq!(
        codes("XCLIENT ADDR=1.2.3.4\r\nXFORWARD NAME=x\r\n"),
        ["550 5.7.0", "550 5.7.0"]
    );
}

#[test]
fn who_sends_chunks_unasked_is_hung_up_on_before_they_are_read_as_commands() {
    let input = format!("{BEGINNING}RCPT TO:<a@b>\r\nBDAT 6 LAST\r\nQUIT\r\n");
    let session = serve(Channel::Secure, input.as_bytes(), &[1000]);
    assert!(session.is_over);
    assert_eq!(session.left, b"QUIT\r\n");
    let last = session.heard.lines().last();
    assert_eq!(
        last,
        Some("421 4.7.0 Chunks are not offered, and cannot be told from commands.")
    );
}

#[test]
fn a_smuggled_end_is_refused_for_each_recipient_and_nothing_behind_it_is_read() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r\r\n",
        "\r\n.\rMAIL",
    ] {
        let smuggled = "MAIL FROM:<root@example.org>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\n";
        let input =
            format!("{BEGINNING}RCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx{end}{smuggled}");
        for sizes in [&[1000][..], &[1]] {
            let session = serve(Channel::Secure, input.as_bytes(), sizes);
            assert!(session.smuggled, "{end:?}");
            let refusal = "554 5.6.0 There is a bare CR or LF in the message.\r\n";
            let go_ahead = "354 Send the message, and end it with CRLF.CRLF.\r\n";
            assert!(
                session
                    .heard
                    .ends_with(&format!("{go_ahead}{refusal}{refusal}")),
                "{end:?}"
            );
            assert!(
                session
                    .left
                    .ends_with(smuggled.as_bytes().strip_prefix(b"MAIL").unwrap())
            );
        }
    }
}

#[test]
fn in_clear_there_are_no_messages_and_nothing_may_stand_behind_starttls() {
    let input = b"LHLO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n";
    let session = serve(Channel::Clear, input, &[1]);
    let codes: Vec<_> = session
        .heard
        .lines()
        .map(|line| line[..4].to_owned())
        .collect();
    assert_eq!(&codes[codes.len() - 3..], ["250 ", "530 ", "220 "]);
    assert!(session.heard.contains("250 STARTTLS\r\n"));
    let injected = serve(Channel::Clear, b"LHLO x\r\nSTARTTLS\r\nLHLO x\r\n", &[1000]);
    assert_eq!(injected.left, b"LHLO x\r\n", "the driver hangs up");
    let after = serve(
        Channel::Clear,
        b"LHLO x\r\nSTARTTLS\r\nMAIL FROM:<>\r\n",
        &[1],
    );
    assert!(after.heard.ends_with("250 2.1.0 The sender is taken.\r\n"));
}

#[test]
fn limits_hold_at_one_past_them() {
    let long = |spaces: usize| {
        let line = format!("NOOP{}", " ".repeat(spaces - 4));
        let input = format!("{line}\r\n");
        serve(Channel::Secure, input.as_bytes(), &[50]).violation
    };
    assert_eq!(long(LIMITS.max_line), None);
    assert_eq!(
        long(LIMITS.max_line + 1),
        Some(ClientViolation::LineTooLong)
    );
    let commands = |count: u32| {
        let input = "NOOP\r\n".repeat(usize::try_from(count).unwrap());
        serve(Channel::Secure, input.as_bytes(), &[50]).violation
    };
    assert_eq!(commands(LIMITS.max_commands), None);
    assert_eq!(
        commands(LIMITS.max_commands + 1),
        Some(ClientViolation::TooManyCommands)
    );
    let errors = |count: u32| {
        let input = "WHAT\r\n".repeat(usize::try_from(count).unwrap());
        serve(Channel::Secure, input.as_bytes(), &[50]).violation
    };
    assert_eq!(errors(LIMITS.max_errors), None);
    assert_eq!(
        errors(LIMITS.max_errors + 1),
        Some(ClientViolation::TooManyErrors)
    );
    let recipients = "RCPT TO:<a@b>\r\n".repeat(6);
    assert_eq!(codes(&recipients).last().unwrap(), "452 4.5.3");
}

#[test]
fn a_connection_that_is_kept_for_many_messages_runs_into_no_limit() {
    let message = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nRSET\r\n";
    let input = format!("LHLO x\r\n{}", message.repeat(50));
    let session = serve(Channel::Secure, input.as_bytes(), &[77]);
    assert_eq!((session.violation, session.messages.len()), (None, 50));
}

#[test]
fn whoever_is_deferred_again_and_again_may_stay() {
    let held = "MAIL FROM:<a@b>\r\nRCPT TO:<held@d>\r\nDATA\r\nRSET\r\n";
    let input = format!("LHLO x\r\n{}", held.repeat(50));
    let session = serve(Channel::Secure, input.as_bytes(), &[77]);
    assert_eq!(session.violation, None);
    assert_eq!(session.heard.matches("\r\n451 4.2.1 ").count(), 50);
}

#[test]
fn a_browser_is_sent_away() {
    for other in [&b"GET / HTTP/1.1\r\n"[..], b"LHLO x\r\nPOST / HTTP/1.1\r\n"] {
        let violation = serve(Channel::Secure, other, &[1]).violation;
        assert_eq!(violation, Some(ClientViolation::ForeignProtocol));
    }
}

/// What a server that is opened for this mail system reads, given what it answers to each command.
fn opening(
    channel: Channel,
    answers: &[&str],
) -> (Vec<String>, Result<NegotiateStep, BackendViolation>) {
    let facts = ClientFacts {
        peer: "192.0.2.7:50000".parse().unwrap(),
        local: "192.0.2.1:24".parse().unwrap(),
        tls: None,
        session: SessionReference::new("fp-1".to_owned()).unwrap(),
        hops: HopLimit::FIRST,
        introduction: Introduction {
            helo: Some("mx.example.org".to_owned()),
            ..Introduction::default()
        },
    };
    let mut opening = LmtpOpening::new(BackSettings {
        channel,
        introduction: facts.introduction.clone(),
        announce: Some(facts),
        prefaced: false,
        limits: BackLimits::default(),
    });
    let (mut input, mut commands) = (WireBuf::new(10_000), Vec::new());
    let mut last = Ok(NegotiateStep::NeedMore);
    for answer in answers {
        let mut out = Vec::new();
        input.extend(format!("{answer}\r\n").as_bytes()).unwrap();
        last = opening.step(&mut input, &mut out);
        if last == Ok(NegotiateStep::StartTls) {
            opening.secured();
            last = opening.step(&mut input, &mut out);
        }
        let out = String::from_utf8(out).unwrap();
        commands.extend(out.lines().map(str::to_owned));
    }
    (commands, last)
}

#[test]
fn a_server_that_takes_it_is_told_of_the_mail_system_and_how_many_proxies_may_follow() {
    let list = "250-server\r\n250-XCLIENT ADDR PORT PROTO HELO SESSION TTL\r\n250 PIPELINING";
    let (commands, end) = opening(Channel::Secure, &["220 hi", list, "220 hi", list]);
    assert_eq!(end, Ok(NegotiateStep::Ready));
    assert_eq!(
        commands,
        [
            "LHLO mx.example.org",
            "XCLIENT HELO=mx.example.org PROTO=LMTP PORT=50000 SESSION=fp-1 TTL=5 ADDR=192.0.2.7",
            "LHLO mx.example.org",
        ]
    );
    let (commands, end) = opening(Channel::Secure, &["220 hi", "250 server"]);
    assert_eq!(
        (&*commands, end),
        (
            &["LHLO mx.example.org".to_owned()][..],
            Ok(NegotiateStep::Ready)
        )
    );
}

#[test]
fn in_clear_a_server_is_told_nothing_before_its_tls() {
    let list = "250-server\r\n250-XCLIENT ADDR\r\n250 STARTTLS";
    let (commands, end) = opening(Channel::Clear, &["220 hi", list, "220 go", "250 server"]);
    assert_eq!(
        commands,
        ["LHLO mx.example.org", "STARTTLS", "LHLO mx.example.org"]
    );
    assert_eq!(end, Ok(NegotiateStep::Ready));
    let (_, end) = opening(Channel::Clear, &["220 hi", "250 server"]);
    assert_eq!(end, Err(BackendViolation::StartTlsMissing));
}

const TRANSACTION: &[u8] =
    b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 saved\r\n";

#[test]
fn a_server_is_asked_all_at_once_only_where_it_offers_that() {
    let commands = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";
    let mut back = open("PIPELINING");
    let mut out = Vec::new();
    back.mail(&envelope("MAIL FROM:<a@b>"), &mut out).unwrap();
    back.recipient(&envelope("RCPT TO:<c@d>"), &mut out);
    back.recipient(&envelope("RCPT TO:<e@f>"), &mut out);
    back.message(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), commands);
    let mut back = open("SIZE");
    out.clear();
    back.mail(&envelope("MAIL FROM:<a@b>"), &mut out).unwrap();
    back.recipient(&envelope("RCPT TO:<c@d>"), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "MAIL FROM:<a@b>\r\n");
    let (_, sent, _) = deliver("8BITMIME", TRANSACTION, &[1]);
    assert!(sent.starts_with(
        "MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"
    ));
}

#[test]
fn a_server_is_given_the_parameters_that_it_takes() {
    for (extensions, mail, to) in [
        (
            "PIPELINING|SIZE|8BITMIME|DSN",
            " SIZE=1 BODY=8BITMIME",
            " NOTIFY=NEVER",
        ),
        ("PIPELINING|SIZE 99", " SIZE=1", ""),
        ("PIPELINING", "", ""),
    ] {
        let (_, sent, _) = deliver(extensions, b"", &[1]);
        let expected =
            format!("MAIL FROM:<a@b>{mail}\r\nRCPT TO:<c@d>{to}\r\nRCPT TO:<e@f>\r\nDATA\r\n");
        assert_eq!(sent, expected, "{extensions}");
    }
    let mut back = open("PIPELINING");
    let mut out = Vec::new();
    let mail = back.mail(&envelope("MAIL FROM:<\u{e4}@b> SMTPUTF8"), &mut out);
    assert_eq!((mail, out.len()), (Err(Reason::Unsupported), 0));
}

#[test]
fn a_recipient_that_the_server_refused_is_owed_no_answer_about_the_message() {
    let (words, sent, left) = deliver("PIPELINING", &[TRANSACTION, b"250 more\r\n"].concat(), &[1]);
    let kinds: Vec<_> = words
        .iter()
        .map(|word| word.split('(').next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "Mail",
            "Recipient",
            "Recipient",
            "GoAhead",
            "Delivered",
            "the backend's answer was not understood"
        ]
    );
    assert!(sent.ends_with("DATA\r\nmessage\r\n.\r\n"));
    assert_eq!(left, b"");
}

#[test]
fn a_word_that_nobody_asked_for_ends_it() {
    for (said, violation) in [
        ("250 hello\r\n", BackendViolation::Malformed),
        ("421 4.3.2 bye\r\n", BackendViolation::Bye),
    ] {
        assert_eq!(told(&mut open("PIPELINING"), said), Err(violation));
    }
}

#[test]
fn a_word_that_does_not_fit_is_never_taken_for_a_delivery() {
    for said in ["354 go\r\n", "334 x\r\n", "what\r\n", "150 x\r\n"] {
        let mut back = open("PIPELINING");
        let mut out = Vec::new();
        back.mail(&envelope("MAIL FROM:<>"), &mut out).unwrap();
        assert_eq!(
            told(&mut back, said),
            Err(BackendViolation::Malformed),
            "{said}"
        );
    }
    let mut back = open("PIPELINING");
    back.message(&mut Vec::new());
    assert_eq!(
        told(&mut back, "250 ok\r\n"),
        Err(BackendViolation::Malformed)
    );
    let mut back = open("PIPELINING");
    back.message(&mut Vec::new());
    assert!(matches!(
        told(&mut back, "503 5.5.1 no\r\n"),
        Ok(Delivery::Refused(_))
    ));
}

#[test]
fn a_connection_to_a_server_lasts_for_many_messages() {
    let mut back = open("PIPELINING");
    let mut out = Vec::new();
    for _ in 0..500 {
        back.mail(&envelope("MAIL FROM:<>"), &mut out).unwrap();
        assert!(matches!(
            told(&mut back, "250 ok\r\n"),
            Ok(Delivery::Mail(_))
        ));
        back.reset(&mut out);
        assert_eq!(told(&mut back, "250 ok\r\n"), Ok(Delivery::Reset));
    }
    back.quit(&mut out);
    assert_eq!(told(&mut back, "221 bye\r\n"), Ok(Delivery::Bye));
}

const COMMANDS: &[&str] = &[
    "LHLO x\r\n",
    "MAIL FROM:<a@b>\r\n",
    "MAIL FROM:<>",
    " SIZE=9\r\n",
    "RCPT TO:<a@b>\r\n",
    "RCPT TO:<held@b>\r\n",
    "RCPT TO:<",
    "@b>",
    "\"",
    "DATA\r\n",
    "text\r\n",
    "..\r\n",
    ".\r\n",
    "\r\n.\r\n",
    ".",
    "\r",
    "\n",
    "\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "BDAT 3 LAST\r\n",
    "VRFY x\r\n",
];

const REPLIES: &[&str] = &[
    "250 ok\r\n",
    "250-a\r\n",
    "354 go\r\n",
    "451 4.2.1 later\r\n",
    "550 5.1.1 no\r\n",
    "421 bye\r\n",
    "221 bye\r\n",
    "250",
    " ",
    "\r\n",
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
            delivery::front(serve, channel, &[b"LHLO x\r\n", &*input].concat(), &sizes);
        }
    }

    #[test]
    fn no_server_breaks_the_rules(
        extensions in select(&["PIPELINING|DSN", "SIZE 1"][..]),
        said in saying(REPLIES),
        sizes in vec(1..20usize, 1..10),
    ) {
        delivery::back(deliver, extensions, &said, &sizes);
    }
}
