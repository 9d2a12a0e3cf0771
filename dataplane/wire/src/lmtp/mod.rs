//! Delivery by LMTP (RFC 2033): we are the server of a mail system, and the client of those that hold the mailboxes.
//!
//! ```text
//!   mail system      LmtpFront          driver                       LmtpBack, one a server    server
//!     │ ── LHLO ─────► answered          │                              │                        │
//!     │ ── MAIL ─────► answered ─ Mail ─►│ kept                         │                        │
//!     │ ── RCPT ─────► Recipient ───────►│ whose, admitted, opened ────► mail, recipient ─ MAIL ─►│
//!     │ ◄─ 250 ─────── recipient ◄───────│ ◄─────────────── Recipient ── step ◄───────── 250 ────│
//!     │ ── DATA ─────► Message ─────────►│ to each that has recipients ► message ─────── DATA ──►│
//!     │ ◄─ 354 ─────── go_ahead ◄────────│ ◄───────────────── Message ── step ◄───────── 354 ────│
//!     │ ══ octets ═══► content ─────────►│ ═════════════ spliced, slowest first ════════════════►│
//!     │ ── . ────────► End ─────────────►│ ────────────────────────────► end ─────────── . ─────►│
//!     │ ◄─ 250 ─────── answer ◄──────────│ ◄─────────────── Delivered ── step ◄───────── 250 ────│
//! ```
//!
//! One reply for every recipient that was accepted, in their order, for one that was named twice too. A message is
//! neither kept nor changed; what it passes is written in front of it.
//!
//! ```text
//!   command   what a mail system asks for
//!   front     we are the server
//!   offer     what that server may offer, given what the servers behind it can do
//!   answer    what is said about a recipient: a server's reply, or words of ours
//!   back      we are the client
//!   words     what we say ourselves
//! ```
//!
//! CHUNKING (RFC 3030) is not offered: a chunk's octets would have to be rewritten for a server that wants DATA. Who
//! sends one all the same is hung up on, since it goes on with octets that are no commands.

mod answer;
mod back;
mod command;
mod front;
mod offer;
mod words;

pub use answer::{Answer, Reason};
pub use back::{Delivery, LmtpBack, LmtpOpening};
pub use front::{LmtpFront, LmtpLimits, LmtpSettings, LmtpStep};
pub use offer::Offer;

pub use crate::smtp::{Address, BadEnvelope, BareLineEnd, Envelope, Hops, Parameter, Piece};
