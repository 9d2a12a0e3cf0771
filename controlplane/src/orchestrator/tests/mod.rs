//! Moves driven in one process, on real stores, with data planes that only say what they are told to say.
