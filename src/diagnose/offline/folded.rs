//! Messages that are broken into several lines: by YAML, as `oc get -o yaml` prints them, by `anyhow` of programs in Rust,
//! by a panic of Go, or by the terminal that somebody copied them from. The reason stands on the last one.

use memchr::memmem::find;

use super::sound::is_typed;

/// How `anyhow` of programs in Rust says an error, and what is behind it.
pub(super) const ERROR: &[u8] = b"Error: ";
const CAUSES: &[u8] = b"Caused by:";
/// Lines that are put together at most, and bytes.
const LINES: usize = 40;
const BYTES: usize = 16 << 10;
/// What the installer and Terraform put before each line of a paragraph, and the widest and narrowest line of one: the next
/// word did not fit on it (`internal/command/format/diagnostic.go`, 78 columns).
const HEADS: &[&str] = &["ERROR ", "FATAL ", "level=error msg=", "level=fatal msg=", "│ "];
const WIDEST: usize = 80;
const FITS: usize = 76;
/// Nobody else breaks lines that are shorter than this.
pub(super) const NARROW: usize = 40;
/// Blanks before a paragraph that hangs from its first line.
const HANGING: usize = 4;
/// What the kubelet says below a mount that failed (`k8s.io/mount-utils`).
const MOUNT: &[&[u8]] = &[b"Mounting command: ", b"Mounting arguments: ", b"Output: "];
/// Lines of a quoted message that may have lost their blanks.
const MOVED: usize = 8;

/// The line that was read last, which may go on below it.
#[derive(Debug)]
pub(super) struct Folded {
    /// Where it began.
    pub number: u64,
    pub line: Vec<u8>,
    /// Where the words of the line that was read last begin in it.
    last: usize,
    /// Where `Error: words` begins in it, behind what a journal says of the program that says so.
    error: Option<usize>,
    lines: usize,
    goes_on: GoesOn,
}

/// What the next line must be to belong to it.
#[derive(Debug, Clone, Copy)]
enum GoesOn {
    /// Behind `message: words`, deeper than its key, up to the quote that closes it, if it began with one.
    Below {
        key: usize,
        quote: Option<u8>,
    },
    /// The rest of a sentence.
    Sentence,
    /// The same, all of it as far to the right as its second line.
    Hanging {
        indent: usize,
    },
    /// `Caused by:`, as it stands below `Error: words` and an empty line.
    Chain,
    /// One of the causes, which are indented.
    Causes,
    /// `on main.tf line 34, in data "a" "b":` of Terraform, up to that line of the file, which stands among others.
    Place {
        line: u64,
    },
    /// Behind `panic: words` of a program in Go, up to the function of its own where that happened.
    Panic,
    Ended,
}

impl Folded {
    pub fn new(number: u64, line: Vec<u8>) -> Self {
        let rest = line.trim_ascii_start();
        let value = rest.strip_prefix(b"- ").unwrap_or(rest);
        let goes_on = match value.strip_prefix(b"message: ") {
            Some(words) => GoesOn::Below {
                key: line.len() - value.len(),
                quote: words.first().copied().filter(|first| b"'\"".contains(first)),
            },
            None if is_folded_block(value) => GoesOn::Below { key: line.len() - value.len(), quote: None },
            None if line.starts_with(b"panic: ") => GoesOn::Panic,
            None => place(value).map_or(GoesOn::Sentence, |line| GoesOn::Place { line }),
        };
        let error = if line.starts_with(ERROR) { Some(0) } else { find(&line, b"]: Error: ").map(|at| at + 3) };
        Self { number, last: head(&line), error, line, lines: 1, goes_on }
    }

    /// Whether the next line goes on with it; then it is put behind it.
    pub fn takes(&mut self, next: &[u8]) -> bool {
        let next = self.said_by_the_same(next);
        let words = self.wraps_into(next);
        let rest = words.unwrap_or(next).trim_ascii();
        let then = match self.goes_on {
            GoesOn::Sentence if rest.is_empty() && self.error.is_some() => {
                self.goes_on = GoesOn::Chain;
                return true;
            }
            GoesOn::Panic if self.lines < LINES && (rest.is_empty() || is_way_to_fault(next)) => {
                self.lines += 1;
                return true;
            }
            GoesOn::Place { line } if self.lines < LINES && row(next).is_some_and(|row| row < line) => {
                self.lines += 1;
                return true;
            }
            _ if rest.is_empty() || self.lines >= LINES || self.line.len() + rest.len() > BYTES => None,
            _ if words.is_some() => Some(self.goes_on),
            GoesOn::Below { quote, .. } if quote.is_some() && self.line.trim_ascii_end().last() == quote.as_ref() => {
                None
            }
            GoesOn::Below { key, quote } => {
                // What stands in quotes ends with them, however far whoever pasted it moved its lines.
                let quoted = quote.is_some() && self.lines < MOVED && !is_headed(rest) && !rest.starts_with(b"- ");
                (indent(next) > key || quoted).then_some(self.goes_on)
            }
            GoesOn::Sentence if self.line.len() >= NARROW && breaks_word(&self.line, next) => Some(GoesOn::Sentence),
            GoesOn::Sentence => {
                let cause = self.error.is_some() && next.starts_with(b"Caused by: ");
                let then = || match indent(next) {
                    _ if rest == CAUSES => GoesOn::Causes,
                    indent if hangs(&self.line, indent) => GoesOn::Hanging { indent },
                    _ => GoesOn::Sentence,
                };
                (cause || self.error.is_some() && rest == CAUSES || runs_on(&self.line, next)).then(then)
            }
            GoesOn::Hanging { indent: of } => {
                (indent(next) == of && stops_inside(&self.line) && !is_headed(rest)).then_some(self.goes_on)
            }
            GoesOn::Chain => (rest == CAUSES).then_some(GoesOn::Causes),
            GoesOn::Causes => next.starts_with(b"  ").then_some(GoesOn::Causes),
            GoesOn::Panic => {
                let Some(function) = called(rest) else { return false };
                self.line.extend_from_slice(b" in ");
                self.line.extend_from_slice(function);
                self.goes_on = GoesOn::Ended;
                return true;
            }
            GoesOn::Place { line } => (row(next) == Some(line)).then_some(GoesOn::Ended),
            GoesOn::Ended => None,
        };
        let Some(then) = then else { return false };
        let rest = after_condition(&self.line, rest).unwrap_or(rest);
        self.goes_on = then;
        self.lines += 1;
        self.line.truncate(self.line.trim_ascii_end().len());
        if is_folded_block(&self.line) {
            let mark = self.line.iter().rposition(|byte| *byte == b'>').unwrap_or(self.line.len());
            self.line.truncate(mark.saturating_sub(1));
        }
        if !breaks_word(&self.line, rest) {
            self.line.push(b' ');
        }
        self.last = self.line.len();
        self.line.extend_from_slice(rest);
        true
    }

    /// Without what a journal says of the program, when that has said an error before.
    fn said_by_the_same<'a>(&self, next: &'a [u8]) -> &'a [u8] {
        let head = self.error.and_then(|error| self.line.get(..error));
        let Some(program) = head.and_then(|head| head.rsplit(|byte| *byte == b' ').nth(1)) else { return next };
        match find(next, program) {
            Some(at) => next.get(at + program.len() + 1..).unwrap_or(next),
            None => next,
        }
    }

    /// The words of `next`, when it is the next line of the same paragraph of Terraform.
    fn wraps_into<'a>(&self, next: &'a [u8]) -> Option<&'a [u8]> {
        let (mine, its) = (head(&self.line), head(next));
        let (last, words) = (self.line.get(self.last..)?.trim_ascii_end(), next.get(its..)?);
        let full = last.len() <= WIDEST && last.len() + 1 + word(words).len() > FITS;
        let goes_on = words.first().is_some_and(|first| first.is_ascii_lowercase() || b"\"(".contains(first));
        let same = mine > 0 && self.line.get(..mine) == next.get(..its);
        (same && full && goes_on && stops_inside(last)).then_some(words)
    }
}

/// `message: >-` of YAML: the lines below it are one paragraph.
fn is_folded_block(line: &[u8]) -> bool {
    [&b": >-"[..], b": >", b": >+"].iter().any(|mark| line.trim_ascii_end().ends_with(mark))
}

/// Whether the terminal that it was copied from broke a line in the middle of a word, which stands whole before in it.
pub(super) fn breaks_word(line: &[u8], next: &[u8]) -> bool {
    const WORD: usize = 8;
    const START: usize = 3;
    // Nearly every line of a log is told from such by its first letter.
    let letters = next.first().is_some_and(u8::is_ascii_lowercase) && line.last().is_some_and(u8::is_ascii_lowercase);
    let at = || line.iter().rposition(|byte| *byte == b' ').map_or(0, |at| at + 1);
    let (Some((before, begun)), Some(start)) =
        (letters.then(at).and_then(|at| line.split_at_checked(at)), next.get(..START))
    else {
        return false;
    };
    begun.len() >= WORD && find(before, &[begun, start].concat()).is_some()
}

/// Where the words of a line begin that has one of [`HEADS`].
fn head(line: &[u8]) -> usize {
    HEADS.iter().find(|head| line.starts_with(head.as_bytes())).map_or(0, |head| head.len())
}

/// Whether a sentence ends in neither of the two but in the next: it stops inside, and that does not begin as lines of
/// programs, commands and tables do. It may be indented further.
fn runs_on(line: &[u8], next: &[u8]) -> bool {
    let deeper = indent(next) > indent(line);
    // The fields of an error of oc: `Reason: NoChannel` and what it says of it.
    let fields = deeper && [&b"error: "[..], b"warning: "].iter().any(|mark| line.starts_with(mark));
    if fields && find(line, b": Reason: ").is_some() && next.trim_ascii_start().starts_with(b"Message: ") {
        return true;
    }
    if find(line, b"mount failed: ").is_some() && MOUNT.iter().any(|head| next.trim_ascii_start().starts_with(head)) {
        return true;
    }
    // Or a list.
    if line.ends_with(b":") && (fields || line.len() >= NARROW && is_list(next)) {
        return !is_typed(line);
    }
    let hangs = indent(next) >= HANGING;
    let next = if deeper || hangs { next.trim_ascii_start() } else { next };
    if line.ends_with(b":")
        && after_condition(line, next).is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_lowercase))
    {
        return true;
    }
    let Some(last) = line.trim_ascii_end().last() else { return false };
    let goes_on = match next {
        [first, ..] if first.is_ascii_lowercase() || *first == b'(' => true,
        [b'"', name, ..] => hangs && name.is_ascii_lowercase() && last.is_ascii_lowercase(),
        [first, second, ..] => *last == b':' && first.is_ascii_uppercase() && second.is_ascii_lowercase(),
        _ => false,
    };
    goes_on
        && (stops_inside(line) || *last == b'"' && next.starts_with(b"("))
        && (line.len() >= NARROW || deeper && *last == b':' && word(line.trim_ascii()) != line.trim_ascii())
        && (!is_headed(next)
            || next.starts_with(b"\"")
            || deeper && *last == b':' && is_sentence(line) && is_link(next))
        && word(line) != word(next)
        && !is_typed(line)
        && [line, next].iter().all(|line| find(line.trim_ascii(), b"  ").is_none() && !line.contains(&b'\t'))
}

/// Whether a line so far to the right is of a paragraph that hangs from this one or has begun with it.
fn hangs(line: &[u8], to: usize) -> bool {
    let from = indent(line);
    to >= HANGING && (to == from || to >= from + HANGING) && !line.trim_ascii_end().ends_with(b":")
}

fn stops_inside(line: &[u8]) -> bool {
    line.trim_ascii_end().last().is_some_and(|last| last.is_ascii_lowercase() || b",:-(".contains(last))
}

/// What a condition of an operator says further, each of its lines below its name: `NodeControllerDegraded: words`.
fn after_condition<'a>(line: &[u8], next: &'a [u8]) -> Option<&'a [u8]> {
    let head = word(line);
    next.strip_prefix(head).filter(|_| is_condition(head)).map(<[u8]>::trim_ascii_start)
}

/// `NodeControllerDegraded:`.
pub(super) fn is_condition(word: &[u8]) -> bool {
    ["Degraded:", "Available:", "Progressing:", "Upgradeable:"].iter().any(|kind| word.ends_with(kind.as_bytes()))
}

/// `{APIGroups:["a"]}`, no JSON of a logger, or `[a=1 b=2]` up to the quote that it stands in; not what a line of a log begins with.
fn is_list(line: &[u8]) -> bool {
    let end = line.trim_ascii_end();
    let end = end.strip_suffix(b"\"").or(end.strip_suffix(b"'")).unwrap_or(end);
    line.starts_with(b"{") && !line.starts_with(b"{\"")
        || line.starts_with(b"[") && end.ends_with(b"]") && find(line, b": ").is_none()
}

/// The line of a file that Terraform names (`internal/command/format/diagnostic.go`).
fn place(text: &[u8]) -> Option<u64> {
    // Every line is asked.
    let text = text.strip_prefix("│".as_bytes()).unwrap_or(text).trim_ascii_start();
    let text = std::str::from_utf8(text.strip_prefix(b"on ")?).ok()?;
    let (number, place) = text.split_once(" line ")?.1.split_once(", in ")?;
    number.parse().ok().filter(|_| place.trim_end().ends_with(':'))
}

/// The number of a line of a file that Terraform shows: `  34: count = 3`.
fn row(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_start_matches(['│', '|', ' ']);
    text.split_once(':')?.0.parse().ok()
}

/// `unit[1]: words`, `error: words`, `key=value`, `kubelet.go:2254] words`.
fn is_headed(line: &[u8]) -> bool {
    let word = word(line);
    word.ends_with(b":") || word.ends_with(b"]") || word.iter().any(|byte| b"=[@".contains(byte))
}

/// `x509: words`: what an error chain goes on with.
fn is_link(line: &[u8]) -> bool {
    word(line).strip_suffix(b":").is_some_and(|name| name.iter().all(u8::is_ascii_alphanumeric))
}

/// Long enough, and no key of a list: those are a word or two.
fn is_sentence(line: &[u8]) -> bool {
    line.len() >= NARROW && line.trim_ascii().split(|byte| *byte == b' ').count() > 2
}

/// What Go's runtime prints between a panic and the function that made it (`runtime/panic.go`, `traceback.go`).
fn is_way_to_fault(line: &[u8]) -> bool {
    ["[signal ", "goroutine ", "panic(", "runtime.", "\t"].iter().any(|start| line.starts_with(start.as_bytes()))
}

/// The function of a line of a stack: `github.com/openshift/installer/pkg/asset.Load(0xc001294460, 0x44)`.
fn called(line: &[u8]) -> Option<&[u8]> {
    let arguments = line.iter().rposition(|byte| *byte == b'(').filter(|_| line.ends_with(b")"))?;
    line.get(..arguments).filter(|function| function.contains(&b'.') && !function.contains(&b' '))
}

pub(super) fn indent(line: &[u8]) -> usize {
    line.len() - line.trim_ascii_start().len()
}

pub(super) fn word(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b' ').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(text: &str) -> Vec<String> {
        let mut whole: Vec<Folded> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            if !whole.last_mut().is_some_and(|last| last.takes(line.as_bytes())) {
                whole.push(Folded::new(number, line.into()));
            }
        }
        whole.iter().map(|folded| format!("{} {}", folded.number, String::from_utf8_lossy(&folded.line))).collect()
    }

    #[test]
    fn a_message_of_yaml_ends_where_the_next_key_stands() {
        let text = "  - lastTransitionTime: \"2025-04-18T08:01:49Z\"\n    message: 'Node a is reporting: \"failed\n      to \
                    retrieve: no such user\"'\n    reason: 1 nodes";
        let lines = together(text);
        assert_eq!(lines[1], "2     message: 'Node a is reporting: \"failed to retrieve: no such user\"'");
        assert_eq!(lines.len(), 3);
        assert_eq!(together("- message: one\n  reason: two").len(), 2);
        assert_eq!(together("message: 'one: \"two\"'\n    reason: three").len(), 2);
        assert_eq!(together("- message: one\n    and more\n  reason: two").len(), 2);
    }

    #[test]
    fn a_folded_block_of_yaml_is_one_paragraph() {
        let text = "    - details: >-\n        Internal error occurred: failed calling webhook\n        \"w.ex.com\": Post\n        \
                    https://w.ns.svc:443/a:\n        x509: certificate signed by unknown authority\n      status: 'False'";
        let whole = "1     - details: Internal error occurred: failed calling webhook \"w.ex.com\": Post https://w.ns.svc:443/a: \
                     x509: certificate signed by unknown authority";
        assert_eq!(together(text), [whole, "6       status: 'False'"]);
        assert_eq!(together("    details: |\n      one line\n      another").len(), 3);
    }

    #[test]
    fn a_word_that_a_terminal_broke_is_whole_again() {
        let text = "Failed to pull image \"image-registry.openshift-image-registry.svc:5000/a/b:latest\": Error reading manifest latest \
                    in image-registry.openshift-image-registry.sv\nc:5000/a/b: name unknown";
        let lines = together(text);
        assert!(
            lines.len() == 1
                && lines[0].ends_with("in image-registry.openshift-image-registry.svc:5000/a/b: name unknown"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_sentence_that_stops_inside_goes_on_in_the_next_line() {
        let text = "error: unable to copy layer sha256:9e3f to file://virt/virt-operator: read\ntcp 10.66.208.130:58372: \
                    read: connection reset by peer\ninfo: Mirroring completed in 3h49m34.36s (7.178MB/s)";
        assert_eq!(together(text).len(), 2);
        let text = "Error: error creating EC2 instance: RequestError: send request failed \ncaused by: Post https://ec2: \
                    dial tcp: i/o timeout";
        assert_eq!(together(text).len(), 1);
        assert!(together(text)[0].contains("failed caused by: Post"));
        let text =
            "Error syncing load balancer: failed to ensure load balancer: could not\n    find any suitable subnets";
        assert!(together(text)[0].ends_with("balancer: could not find any suitable subnets"));
        let text = "Error running must-gather collection:\n    gather never finished for pod must-gather-cwwln";
        assert_eq!(together(text).len(), 1);
        let text =
            "An error occurred (InvalidParameter) when calling the ImportSnapshot operation:\nThe role does not exist";
        assert_eq!(together(text).len(), 1);
    }

    #[test]
    fn a_paragraph_that_hangs_from_its_first_line_is_one() {
        let text = concat!(
            "error validating existing CRs against new CRD's schema for\n",
            "        \"externalsecrets.external-secrets.io\": error listing resources in\n",
            "        GroupVersionResource\n",
            "        schema.GroupVersionResource{Group:\"external-secrets.io\",\n",
            "        Version:\"v1alpha1\", Resource:\"externalsecrets\"}: conversion webhook for\n",
            "        external-secrets.io/v1beta1, Kind=ExternalSecret failed: not found\n",
            "    reason: another\n",
        );
        let lines = together(text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0]
                .ends_with("conversion webhook for external-secrets.io/v1beta1, Kind=ExternalSecret failed: not found")
        );
        let lines = together(&text.replacen("error", "        error", 1));
        assert_eq!(lines.len(), 2, "{lines:?}");
        let moved = "- message: 'constraints not satisfiable: a and\nb/c/d.v1 originate from package a\nrequires\n    a is not \
                     referenced by a subscription'\n  reason: ConstraintsNotSatisfiable";
        let lines = together(moved);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("originate from package a requires a is not referenced by a subscription'"));
    }

    #[test]
    fn a_link_of_an_error_chain_belongs_to_what_stands_before_its_colon() {
        let text = concat!(
            "  failed to do request: Head \"https://harbor.corp/v2/prod/app/manifests/1.4.2\":\n",
            "    x509: certificate signed by unknown authority\n",
            "What a command has printed so far stands here:\n",
            "    key=value: and more\n",
        );
        assert_eq!(together(text).len(), 3, "{:?}", together(text));
        assert!(together(text)[0].ends_with("1.4.2\": x509: certificate signed by unknown authority"));
    }

    #[test]
    fn a_condition_names_itself_on_each_of_its_lines() {
        let text = "NodeControllerDegraded: invalid format of ConfigMap a: yaml: unmarshal errors:\nNodeControllerDegraded: line 1: \
                    field B not found\nNodeControllerDegraded: All is well";
        let whole = "1 NodeControllerDegraded: invalid format of ConfigMap a: yaml: unmarshal errors: line 1: field B not found";
        assert_eq!(together(text), [whole, "3 NodeControllerDegraded: All is well"]);
    }

    #[test]
    fn an_error_chain_of_rust_is_one() {
        let text =
            "Error: parsing Ignition config install.ign\n\nCaused by:\n    unsupported config version: 3.6.0\nnext";
        let lines = together(text);
        assert_eq!(
            lines,
            ["1 Error: parsing Ignition config install.ign Caused by: unsupported config version: 3.6.0", "5 next"]
        );
        assert_eq!(together("Error: it is over\n\nand this is something else").len(), 2);
        let lines = together("Error: checking /dev/sda\nCaused by: device is in use\nCaused by: EBUSY\nnext");
        assert_eq!(lines, ["1 Error: checking /dev/sda Caused by: device is in use Caused by: EBUSY", "4 next"]);
        let head = "Jan 01 12:19:44 a.example.com install-to-disk.sh[3522]: ";
        let text = ["Error: checking for exclusive access to /dev/sda", "Caused by:", "    found busy partitions"];
        let lines = together(&text.map(|line| format!("{head}{line}\n")).concat());
        let whole =
            format!("1 {head}Error: checking for exclusive access to /dev/sda Caused by: found busy partitions");
        assert_eq!(lines, [whole]);
    }

    #[test]
    fn terraform_shows_the_line_that_it_stops_at() {
        let text = "Error: Invalid template interpolation value\n\n  on machine/ignition.tf line 34, in data \"ignition_file\" \
                    \"static_ip\":\n  33: \n  34: IPADDR=${local.ip_addresses[count.index]}\n  35: \n    | count.index is 0";
        let place = "on machine/ignition.tf line 34, in data \"ignition_file\" \"static_ip\":";
        assert_eq!(together(text)[1], format!("3   {place} 34: IPADDR=${{local.ip_addresses[count.index]}}"));
        assert_eq!(
            together("│   on main.tf line 4, in module \"a\":\n│    4:   b = 1\n│")[0],
            "1 │   on main.tf line 4, in module \"a\": │    4:   b = 1"
        );
        let text = "user \"system:serviceaccount:a:b\" is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"a\"]}\n{APIGroups:[\"b\"]}";
        assert_eq!(together(text).len(), 2);
        let text = "error: cannot refresh available updates:\n  Reason: NoChannel\n  Message: The channel has not been set.\n\nTo go on";
        let whole =
            "1 error: cannot refresh available updates: Reason: NoChannel Message: The channel has not been set.";
        assert_eq!(together(text), [whole, "4 ", "5 To go on"]);
        let text = "Node is reporting: \"unexpected on-disk state validating against:\nmissing expected kernel arguments:\n[a=0 b=1]\"";
        assert_eq!(together(text).len(), 1, "{:?}", together(text));
    }

    #[test]
    fn a_paragraph_of_terraform_is_one_behind_any_head() {
        let text = "Error: Provider produced inconsistent result after apply\n\nWhen applying changes to\n\
                    module.masters.ironic_node_v1.openshift-master-host[1], provider\n\"registry.terraform.io/-/ironic\" \
                    produced an unexpected new value for was\npresent, but now absent.\n\nThis is a bug.";
        for head in ["ERROR ", "level=error msg=", "│ "] {
            let lines = together(&text.lines().map(|line| format!("{head}{line}\n")).collect::<String>());
            let whole = "When applying changes to module.masters.ironic_node_v1.openshift-master-host[1], provider \
                         \"registry.terraform.io/-/ironic\" produced an unexpected new value for was present, but now absent.";
            assert_eq!(lines[2], format!("3 {head}{whole}"));
            assert_eq!(lines.len(), 5);
        }
        assert_eq!(together("ERROR it timed out waiting\nERROR failed to ask for the cluster").len(), 2);
    }

    #[test]
    fn a_panic_says_which_function_made_it() {
        let text = "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation \
                    violation code=0x1]\n\ngoroutine 1 [running]:\npanic({0x1, 0x2})\n\t/usr/local/go/src/runtime/panic.go:88\n\
                    github.com/a/b.(*Client).Load(0xc001294460, 0x44)\n\t/go/src/b.go:30 +0x3e\nmain.main()";
        let lines = together(text);
        let first = "1 panic: runtime error: invalid memory address or nil pointer dereference in github.com/a/b.(*Client).Load";
        assert_eq!(lines, [first, "8 \t/go/src/b.go:30 +0x3e", "9 main.main()"]);
        assert_eq!(
            together("panic: it is over\nand this is something else"),
            ["1 panic: it is over", "2 and this is something else"]
        );
    }

    #[test]
    fn lines_that_stand_for_themselves_are_left_alone() {
        for text in [
            "Error: initializing source docker://example.com/a: not found\nerror: the next one is another line of its own",
            "level=info msg=Waiting up to 20m0s for the Kubernetes API at api\nlevel=error msg=Attempted to gather",
            "bootkube.sh[7285]: Warning: Could not resolve release image to pull by digest\nbootkube.sh[7285]: next",
            "authentication      4.10.0     True        False         False      40h\ncloud-credential    4.10.0   True",
            "[core@bastion ~]$ oc get clusterversion version -o yaml\napiVersion of it is no sentence",
            "Mar 11 09:49:14 okd4 bootkube.sh[749]: [#3542] failed to create some manifests:\nMar 11 09:49:14 okd4 bootkube.sh",
            "waiting for catalog pod mock-ocs-main-update2 to be available - connecting\nwaiting for catalog pod mock-ocs",
            "    command: [the first word of it is longer than all the others together, and\n      beside: it",
            "    - the first words of it are longer than all the others, which is why\n    - another one",
            "belet.go:2254] node \"os-test-9fxbk-worker-s5fll\" not found\nflector.go:161] Listing and watching *v1.Pod from",
            "Nothing ends here, since it ends with a full stop, as it should.\nand this is another sentence",
        ] {
            assert_eq!(together(text).len(), 2, "{text}");
        }
    }
}
