//! What a user would notice, against real parts where there are any. One binary, so that it links once.
