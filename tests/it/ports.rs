//! Ports for the servers that the tests start.
#![allow(clippy::expect_used, reason = "a test stops where it cannot go on")]

/// A port that stays free until it is bound: below those that the kernel gives to connections and to port 0, which another
/// test would get in the meantime.
pub fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).take(1000).find(free).expect("a port")
}
