//! Facts about the machine and small arithmetic: `date`, `id`, `hostname`, `seq`, `sleep` and their like.

use std::io;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::options;
use super::text::{echo as echo_text, format_printf};
use crate::lab::machines::program::{Cx, PATH, which as which_path};
use crate::lab::machines::shell::test::test as evaluate;

pub(super) async fn yes(_: &mut Cx) -> io::Result<i32> {
    Ok(0)
}
pub(super) async fn no(_: &mut Cx) -> io::Result<i32> {
    Ok(1)
}

pub(super) async fn echo(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    cx.out(echo_text(&words)).await.map(|()| 0)
}

pub(super) async fn printf(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match format_printf(&words) {
        Ok(text) => cx.out(text).await.map(|()| 0),
        Err(why) => {
            cx.complain(why).await;
            Ok(1)
        }
    }
}

pub(super) async fn test(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    if cx.name() == "[" && words.pop() != Some("]") {
        cx.complain("missing ']'").await;
        return Ok(2);
    }
    match evaluate(cx.machine.fs(), &cx.cwd, &words) {
        Ok(yes) => Ok(i32::from(!yes)),
        Err(why) => {
            cx.complain(why).await;
            Ok(2)
        }
    }
}

pub(super) async fn pwd(cx: &mut Cx) -> io::Result<i32> {
    cx.out(format!("{}\n", cx.cwd)).await.map(|()| 0)
}

/// A point in time as `date -d` takes it: `@seconds`, RFC 3339, `now`, `+2 days`, `1 hour ago`.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    let now = Timestamp::now();
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        let whole = seconds.split('.').next()?;
        return Timestamp::from_second(whole.parse().ok()?).ok();
    }
    if text.is_empty() || text == "now" {
        return Some(now);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"] {
        if let Ok(at) = jiff::civil::DateTime::strptime(format, text.trim_end_matches(" UTC")) {
            return at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
        }
        if let Ok(at) = jiff::civil::Date::strptime(format, text) {
            return at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
        }
    }
    let words: Vec<&str> = text.trim_start_matches("now").split_whitespace().collect();
    let (number, unit, ago) = match words.as_slice() {
        [number, unit] => (number, unit, false),
        [number, unit, "ago"] => (number, unit, true),
        _ => return None,
    };
    let number: i64 = number.trim_start_matches('+').parse().ok()?;
    let unit = match unit.trim_end_matches('s') {
        "sec" | "second" => 1,
        "min" | "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        "week" => 604_800,
        _ => return None,
    };
    let seconds = number.checked_mul(unit)?;
    let span = Span::new().try_seconds(if ago { -seconds } else { seconds }).ok()?;
    now.checked_add(span).ok()
}

pub(super) async fn date(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "u R utc rfc-email", "d date r reference I iso-8601 s");
    let at = match (args.value("d date"), args.value("r reference")) {
        (Some(text), _) => moment(text),
        (None, Some(name)) => {
            cx.machine.fs().meta(&cx.path(name), true).ok().and_then(|meta| Timestamp::try_from(meta.modified).ok())
        }
        (None, None) => Some(cx.machine.skew().now()),
    };
    let Some(at) = at else {
        cx.complain("invalid date").await;
        return Ok(1);
    };
    let format = match (args.rest.first().and_then(|word| word.strip_prefix('+')), args.value("I iso-8601")) {
        (Some(format), _) => format.to_owned(),
        (None, Some("seconds" | "s")) => "%Y-%m-%dT%H:%M:%S+00:00".to_owned(),
        (None, Some(_)) => "%Y-%m-%d".to_owned(),
        (None, None) => "%a %b %e %H:%M:%S UTC %Y".to_owned(),
    };
    let nanos = format!("{:09}", at.subsec_nanosecond());
    let millis: String = nanos.chars().take(3).collect();
    let format = format.replace("%3N", &millis).replace("%N", &nanos).replace("%-N", &nanos);
    let at = at.to_zoned(TimeZone::UTC);
    match jiff::fmt::strtime::format(&format, &at) {
        Ok(text) => cx.out(text + "\n").await.map(|()| 0),
        Err(_) => {
            cx.complain(format!("invalid format '{format}'")).await;
            Ok(1)
        }
    }
}

/// Real seconds, whatever the lab's clock does: the product's scripts and its own waits keep pace with each other.
pub(super) async fn sleep(cx: &mut Cx) -> io::Result<i32> {
    let mut total = 0.0;
    for word in cx.words() {
        let number = word.trim_end_matches(['s', 'm', 'h', 'd']);
        let unit = match word.get(number.len()..) {
            Some("m") => 60.0,
            Some("h") => 3600.0,
            Some("d") => 86_400.0,
            _ => 1.0,
        };
        match (word.as_str(), number.parse::<f64>()) {
            ("infinity", _) => total = 1e8,
            (_, Ok(value)) if value.is_finite() && value >= 0.0 => total += value * unit,
            _ => {
                cx.complain(format!("invalid time interval '{word}'")).await;
                return Ok(1);
            }
        }
    }
    tokio::time::sleep(Duration::from_secs_f64(total.min(1e8))).await;
    Ok(0)
}

pub(super) async fn id(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "u g n r G user group name groups", "");
    let user = args.rest.first().unwrap_or(&cx.user).clone();
    if user != "root" && user != cx.machine.user {
        cx.complain(format!("'{user}': no such user")).await;
        return Ok(1);
    }
    let number = if user == "root" { 0 } else { 1000 };
    let text = if args.has("n name") {
        user
    } else if args.has("u g G user group groups") {
        number.to_string()
    } else {
        format!("uid={number}({user}) gid={number}({user}) groups={number}({user})")
    };
    cx.out(text + "\n").await.map(|()| 0)
}

pub(super) async fn groups(cx: &mut Cx) -> io::Result<i32> {
    let text = if cx.user == "root" { "root\n".to_owned() } else { format!("{} adm wheel systemd-journal\n", cx.user) };
    cx.out(text).await.map(|()| 0)
}

pub(super) async fn whoami(cx: &mut Cx) -> io::Result<i32> {
    cx.out(format!("{}\n", cx.user)).await.map(|()| 0)
}

pub(super) async fn hostname(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "s f i I d short fqdn ip-address all-ip-addresses static", "");
    let machine = &cx.machine;
    let text = if args.has("I i ip-address all-ip-addresses") {
        machine.address.clone()
    } else if args.has("s short") {
        machine.name.split('.').next().unwrap_or_default().to_owned()
    } else {
        machine.name.clone()
    };
    // `hostnamectl set-hostname` and the like do nothing.
    cx.out(text + "\n").await.map(|()| 0)
}

pub(super) async fn uname(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "a s n r v m p i o all machine kernel-name kernel-release nodename", "");
    let name = cx.machine.name.clone();
    let parts = [
        ("s kernel-name", "Linux"),
        ("n nodename", name.as_str()),
        ("r kernel-release", "5.14.0-570.12.1.el9_6.x86_64"),
        ("v", "#1 SMP PREEMPT_DYNAMIC"),
        ("m p i machine", "x86_64"),
        ("o", "GNU/Linux"),
    ];
    let chosen: Vec<&str> =
        parts.iter().filter(|(names, _)| args.has("a all") || args.has(names)).map(|(_, text)| *text).collect();
    let text = if chosen.is_empty() { "Linux".to_owned() } else { chosen.join(" ") };
    cx.out(text + "\n").await.map(|()| 0)
}

pub(super) async fn basename(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "a", "s");
    let path = args.rest.first().map_or("", String::as_str);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = if name.is_empty() && path.starts_with('/') { "/" } else { name };
    let suffix = args.value("s").or(args.rest.get(1).map(String::as_str)).unwrap_or_default();
    let short = name.strip_suffix(suffix).filter(|short| !short.is_empty()).unwrap_or(name);
    cx.out(format!("{short}\n")).await.map(|()| 0)
}

pub(super) async fn dirname(cx: &mut Cx) -> io::Result<i32> {
    let path = cx.words().first().cloned().unwrap_or_default();
    let dir = match path.trim_end_matches('/').rsplit_once('/') {
        Some((dir, _)) if !dir.trim_end_matches('/').is_empty() => dir.trim_end_matches('/'),
        Some(_) => "/",
        None if path.starts_with('/') => "/",
        None => ".",
    };
    cx.out(format!("{dir}\n")).await.map(|()| 0)
}

pub(super) async fn seq(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "w", "s f");
    let numbers: Vec<i64> = args.rest.iter().filter_map(|word| word.parse().ok()).collect();
    let (from, step, to) = match numbers.as_slice() {
        [to] => (1, 1, *to),
        [from, to] => (*from, 1, *to),
        [from, step, to] if *step != 0 => (*from, *step, *to),
        _ => {
            cx.complain("invalid arguments").await;
            return Ok(1);
        }
    };
    let separator = args.value("s").unwrap_or("\n");
    let mut at = from;
    let mut first = true;
    while if step > 0 { at <= to } else { at >= to } {
        cx.out(if first { at.to_string() } else { format!("{separator}{at}") }).await?;
        first = false;
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    if !first {
        cx.out("\n").await?;
    }
    Ok(0)
}

/// Integers and comparisons; `:` is not there.
pub(super) async fn expr(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let value = match words.as_slice() {
        [one] => Some((*one).to_owned()),
        [left, op, right] => match (left.parse::<i64>(), right.parse::<i64>()) {
            (Ok(left), Ok(right)) => match *op {
                "+" => left.checked_add(right),
                "-" => left.checked_sub(right),
                "*" => left.checked_mul(right),
                "/" => left.checked_div(right),
                "%" => left.checked_rem(right),
                "=" => Some(i64::from(left == right)),
                "!=" => Some(i64::from(left != right)),
                "<" => Some(i64::from(left < right)),
                "<=" => Some(i64::from(left <= right)),
                ">" => Some(i64::from(left > right)),
                ">=" => Some(i64::from(left >= right)),
                _ => None,
            }
            .map(|value| value.to_string()),
            _ if matches!(*op, "=" | "!=") => Some(i32::from((left == right) == (*op == "=")).to_string()),
            _ => None,
        },
        _ => None,
    };
    match value {
        Some(value) => {
            cx.out(format!("{value}\n")).await?;
            Ok(i32::from(value == "0" || value.is_empty()))
        }
        None => {
            cx.complain("syntax error").await;
            Ok(2)
        }
    }
}

pub(super) async fn which(cx: &mut Cx) -> io::Result<i32> {
    let path = cx.env.get("PATH").cloned().unwrap_or_else(|| PATH.to_owned());
    let mut status = 0;
    for name in cx.words() {
        match which_path(&cx.machine, &name, &cx.cwd, &path) {
            Some(found) => cx.out(found + "\n").await?,
            None => {
                cx.complain(format!("no {name} in ({path})")).await;
                status = 1;
            }
        }
    }
    Ok(status)
}

pub(super) async fn nproc(cx: &mut Cx) -> io::Result<i32> {
    cx.out("4\n").await.map(|()| 0)
}

pub(super) async fn free(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "m g k b h w", "");
    let show = |mib: u64| match () {
        () if args.has("g h") => mib / 1024,
        () if args.has("m") => mib,
        () if args.has("b") => mib << 20,
        () => mib << 10,
    };
    let (total, used) = (show(15_827), show(2_048));
    let left = total - used;
    cx.out(format!(
        "               total        used        free      shared  buff/cache   available\n\
         Mem:     {total:>11} {used:>11} {left:>11}           0           0 {left:>11}\n\
         Swap:              0           0           0\n"
    ))
    .await
    .map(|()| 0)
}

pub(super) async fn uptime(cx: &mut Cx) -> io::Result<i32> {
    let minutes = crate::lab::machines::uptime().as_secs() / 60;
    let now = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%H:%M:%S").to_string();
    cx.out(format!(" {now} up {minutes} min,  1 user,  load average: 0.10, 0.08, 0.05\n")).await.map(|()| 0)
}

pub(super) async fn getenforce(cx: &mut Cx) -> io::Result<i32> {
    cx.out("Enforcing\n").await.map(|()| 0)
}

/// `getent hosts NAME` for the lab's machines, and `passwd`.
pub(super) async fn getent(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let text = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hosts" | "ahosts" | "ahostsv4", name] => {
            cx.machine.address_of(name).map(|address| format!("{address} {name}\n"))
        }
        ["passwd", user] => {
            let passwd = cx.machine.fs().read("/etc/passwd")?;
            let passwd = String::from_utf8_lossy(&passwd).into_owned();
            passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).map(|line| format!("{line}\n"))
        }
        _ => None,
    };
    match text {
        Some(text) => cx.out(text).await.map(|()| 0),
        None => Ok(2),
    }
}
