//! The document of `/stats`.
