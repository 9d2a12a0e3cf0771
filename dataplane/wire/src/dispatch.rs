//! The protocols that there are, and the one place where a protocol is chosen by its kind.

/// Makes [`ProtocolKind`](crate::ProtocolKind) and [`dispatch!`](crate::dispatch) out of a line for each
/// protocol: its variant, its type, and its name in lower case.
macro_rules! protocols {
    ($($(#[$doc:meta])* $kind:ident: $($path:ident)::+ = $name:literal,)+) => {
        /// The protocols that this crate speaks: a closed set, fit for a metric label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProtocolKind {
            $($(#[$doc])* $kind,)+
        }

        impl ProtocolKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The names of all of them.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The protocol's name in lower case, as configuration and metrics write it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }

        export_dispatch! { ($) $($kind: $($path)::+,)+ }
    };
}

/// The dollar sign is handed in, for a macro cannot write one into a macro that it makes.
macro_rules! export_dispatch {
    (($d:tt) $($kind:ident: $($path:ident)::+,)+) => {
        /// Evaluates an expression for the [`LineProtocol`](crate::LineProtocol) of a
        /// [`ProtocolKind`](crate::ProtocolKind): the only `match` on protocols that there is.
        ///
        /// ```
        /// use ferrypost_wire::{LineProtocol, ProtocolKind, dispatch};
        /// assert!(dispatch!(ProtocolKind::Imap, P => P::KIND) == ProtocolKind::Imap);
        /// ```
        #[macro_export]
        macro_rules! dispatch {
            ($d kind:expr, $d protocol:ident => $d body:expr) => {
                match $d kind {
                    $($crate::ProtocolKind::$kind => {
                        type $d protocol = $crate::$($path)::+;
                        $d body
                    })+
                }
            };
        }
    };
}
