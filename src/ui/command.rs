//! Every verb of the cockpit, once. Footer, help, palette and key table are made from this.

use super::layout::PaneId;

/// What can be done. The number of a pane counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Help,
    Palette,
    Open,
    Back,
    Quit,
    Interrupt,
    Suspend,
    Shell,
    Edit,
    Redraw,
    NextPane,
    PreviousPane,
    Pane(PaneId),
    Zoom,
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    Copy,
    CopyCommand,
    Screenshot,
    Save,
    NextTheme,
    Mouse,
    Lock,
    Hide,
    ShowAll,
    MovePane,
    Wider,
    Narrower,
    Taller,
    Shorter,
    Timeline,
    Retry,
    Skip,
    Cancel,
    StopAfter,
    RunChecks,
    Recover,
    Resync,
    LeaveOut,
    ApproveCsr,
    AcceptHostKey,
    Search,
    FindNext,
    FindPrevious,
    Filter,
    Context,
    Follow,
    Wrap,
    Times,
    NextError,
    PreviousError,
    NextWarning,
    PreviousWarning,
    Mark,
    Merge,
    NextSource,
    PreviousSource,
    Left,
    Right,
    StepForward,
    StepBack,
    JumpForward,
    JumpBack,
    Play,
    Faster,
    Slower,
    NextFailure,
    NextStage,
    PreviousStage,
    Beginning,
    Now,
}

/// How much a verb changes, and therefore how it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Done at once.
    Safe,
    /// Asks yes or no.
    Change,
    /// Asks for the name of the cluster.
    Destroy,
}

/// Where a verb has a meaning. The key table has one section for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    Global,
    Timeline,
    Pane(PaneId),
}

impl Context {
    pub const ALL: [Context; 10] = [
        Context::Global,
        Context::Timeline,
        Context::Pane(PaneId::Pipeline),
        Context::Pane(PaneId::Sync),
        Context::Pane(PaneId::Journal),
        Context::Pane(PaneId::Bootkube),
        Context::Pane(PaneId::Operators),
        Context::Pane(PaneId::Checks),
        Context::Pane(PaneId::Activity),
        Context::Pane(PaneId::Resources),
    ];

    /// Its section in the key table.
    pub fn name(self) -> &'static str {
        match self {
            Context::Global => "global",
            Context::Timeline => "timeline",
            Context::Pane(PaneId::Pipeline) => "pipeline",
            Context::Pane(PaneId::Sync) => "sync",
            Context::Pane(PaneId::Journal) => "journal",
            Context::Pane(PaneId::Bootkube) => "bootkube",
            Context::Pane(PaneId::Operators) => "operators",
            Context::Pane(PaneId::Checks) => "checks",
            Context::Pane(PaneId::Activity) => "activity",
            Context::Pane(PaneId::Resources) => "resources",
        }
    }
}

/// A verb as the operator meets it.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub verb: Verb,
    /// Its name in the key table and the palette.
    pub id: &'static str,
    /// One or two words for the footer.
    pub title: &'static str,
    pub doc: &'static str,
    /// The least danger; what it is aimed at can make it worse.
    pub danger: Danger,
    /// Place in the footer, 1 first; 0 is not shown there.
    pub footer: u8,
}

const fn command(
    verb: Verb,
    id: &'static str,
    title: &'static str,
    doc: &'static str,
    danger: Danger,
    footer: u8,
) -> Command {
    Command { verb, id, title, doc, danger, footer }
}

/// All of them, in the order in which help shows them.
pub const TABLE: &[Command] = {
    use Danger::{Change, Safe};
    use PaneId::*;
    use Verb::*;
    &[
        command(Help, "help", "help", "Show the keys that work here", Safe, 50),
        command(Palette, "palette", "command", "Find any command by its name", Safe, 51),
        command(Open, "open", "open", "Show everything about the chosen row", Safe, 30),
        command(Back, "back", "back", "Close, clear or go back; never leaves", Safe, 0),
        command(Quit, "quit", "detach", "Close this screen; the work goes on", Safe, 60),
        command(Interrupt, "interrupt", "detach now", "Pressed twice: leave at once; the work goes on", Safe, 0),
        command(Suspend, "suspend", "suspend", "Back to the shell; fg returns", Safe, 0),
        command(
            Shell,
            "shell",
            "shell",
            "A shell on the running step's host, else on the bastion; exit returns",
            Safe,
            0,
        ),
        command(Edit, "edit", "edit", "This log at this line, else the spec, in $EDITOR", Safe, 0),
        command(Redraw, "redraw", "redraw", "Draw the whole screen anew", Safe, 0),
        command(NextPane, "next-pane", "pane", "Focus the next pane", Safe, 40),
        command(PreviousPane, "previous-pane", "pane back", "Focus the pane before", Safe, 0),
        command(Pane(Pipeline), "pipeline", "pipeline", "Focus the pipeline", Safe, 0),
        command(Pane(Sync), "sync", "sync", "Focus the image sync", Safe, 0),
        command(Pane(Journal), "journal", "journal", "Focus the journal", Safe, 0),
        command(Pane(Bootkube), "bootkube", "bootkube", "Focus the bootkube stages", Safe, 0),
        command(Pane(Operators), "operators", "operators", "Focus operators, nodes and CSRs", Safe, 0),
        command(Pane(Checks), "checks", "checks", "Focus findings and checks", Safe, 0),
        command(Pane(Activity), "activity", "activity", "Focus the activity", Safe, 0),
        command(Pane(Resources), "resources", "resources", "Focus what was made, its state and its cost", Safe, 0),
        command(Zoom, "zoom", "zoom", "Give the focused pane the whole screen, or give it back", Safe, 41),
        command(Up, "up", "up", "One row up", Safe, 0),
        command(Down, "down", "down", "One row down", Safe, 0),
        command(PageUp, "page-up", "page up", "One page up", Safe, 0),
        command(PageDown, "page-down", "page down", "One page down", Safe, 0),
        command(Top, "top", "top", "To the first row", Safe, 0),
        command(Bottom, "bottom", "bottom", "To the last row; in the journal: follow", Safe, 0),
        command(Copy, "copy", "copy", "Copy the chosen row or the marked lines (OSC 52, works over SSH)", Safe, 0),
        command(CopyCommand, "copy-command", "copy command", "Copy the command of the chosen row", Safe, 0),
        command(
            Screenshot,
            "screenshot",
            "screenshot",
            "Write this screen to a file, as text and with styles",
            Safe,
            0,
        ),
        command(Save, "save", "save", "Write all of this log (as filtered) or of this pane to a file", Safe, 0),
        command(Mouse, "mouse", "mouse", "Take the mouse for wheel and clicks, or leave it to the terminal", Safe, 0),
        command(Lock, "lock", "lock", "Allow no change of the run from this screen, or allow it again", Safe, 0),
        command(Hide, "hide-pane", "hide", "Take the focused pane off the screen; its number still shows it", Safe, 0),
        command(ShowAll, "show-panes", "show all", "All panes where and as large as the layout has them", Safe, 0),
        command(MovePane, "move-pane", "move", "Let the focused pane and the next one change places", Safe, 0),
        command(Wider, "wider", "wider", "Make the focused pane wider", Safe, 0),
        command(Narrower, "narrower", "narrower", "Make the focused pane narrower", Safe, 0),
        command(Taller, "taller", "taller", "Give the focused pane more rows", Safe, 0),
        command(Shorter, "shorter", "shorter", "Take rows from the focused pane", Safe, 0),
        command(NextTheme, "next-theme", "theme", "Change to the next theme", Safe, 0),
        command(Timeline, "timeline", "timeline", "Look back in time with a slider", Safe, 42),
        command(Retry, "retry", "retry", "Try the failed step again, now", Change, 10),
        command(Skip, "skip", "skip", "Leave the failed or running step out", Change, 0),
        command(Cancel, "cancel", "abort", "Stop the running step and the run", Change, 0),
        command(StopAfter, "stop-after", "stop after", "End the run after the chosen stage", Change, 0),
        command(RunChecks, "run-checks", "run checks", "Run the read-only probes of the chosen finding", Safe, 12),
        command(Recover, "recover", "apply fix", "Apply the recovery of the chosen finding, then resume", Change, 11),
        command(Resync, "resync", "copy again", "Copy the chosen image again", Safe, 13),
        command(LeaveOut, "leave-out", "leave out", "Do without the chosen image", Change, 0),
        command(ApproveCsr, "approve-csr", "approve", "Approve the chosen certificate signing request", Change, 14),
        command(
            AcceptHostKey,
            "accept-host-key",
            "accept key",
            "Say yes to the host key that the bastion shows",
            Change,
            15,
        ),
        command(Search, "search", "search", "Find in all of the log, without hiding anything", Safe, 20),
        command(FindNext, "find-next", "next match", "To the next match", Safe, 0),
        command(FindPrevious, "find-previous", "match before", "To the match before", Safe, 0),
        command(Filter, "filter", "filter", "Show only matching lines; !word hides them", Safe, 21),
        command(Context, "context", "context", "Show the chosen line in its own log, among its neighbours", Safe, 0),
        command(Mark, "mark", "mark", "Mark from here: copy takes all lines up to the chosen one", Safe, 0),
        command(Merge, "merge", "all logs", "All logs together, by time, or one again", Safe, 25),
        command(Follow, "follow", "follow", "Follow the end of the log, or pause", Safe, 22),
        command(Wrap, "wrap", "wrap", "Wrap long lines, or not", Safe, 0),
        command(Times, "times", "times", "Show the time of each line, or not", Safe, 0),
        command(NextError, "next-error", "next error", "To the next error in any log", Safe, 23),
        command(PreviousError, "previous-error", "error before", "To the error before, in any log", Safe, 0),
        command(NextWarning, "next-warning", "next warning", "To the next warning or error in any log", Safe, 0),
        command(PreviousWarning, "previous-warning", "warning before", "To the warning or error before", Safe, 0),
        command(NextSource, "next-source", "source", "To the next log", Safe, 24),
        command(PreviousSource, "previous-source", "source back", "To the log before", Safe, 0),
        command(Left, "left", "left", "Scroll left", Safe, 0),
        command(Right, "right", "right", "Scroll right", Safe, 0),
        command(StepForward, "step-forward", "step", "One event forward", Safe, 5),
        command(StepBack, "step-back", "step back", "One event back", Safe, 0),
        command(JumpForward, "jump-forward", "jump", "A twentieth of the run forward", Safe, 0),
        command(JumpBack, "jump-back", "jump back", "A twentieth of the run back", Safe, 0),
        command(Play, "play", "play/pause", "Let time go on, or stop it", Safe, 1),
        command(Faster, "faster", "faster", "Twice the speed, up to 64", Safe, 2),
        command(Slower, "slower", "slower", "Half the speed, down to 1", Safe, 0),
        command(NextFailure, "next-failure", "failure", "To the next failure or finding", Safe, 3),
        command(NextStage, "next-stage", "stage", "To where the next stage begins", Safe, 4),
        command(PreviousStage, "previous-stage", "stage back", "To where the stage before begins", Safe, 0),
        command(Beginning, "beginning", "beginning", "To the first event", Safe, 0),
        command(Now, "now", "now", "To the last event; on a live run: back to now", Safe, 6),
    ]
};

impl Verb {
    pub fn command(self) -> &'static Command {
        // The test below proves that every verb is in the table; help is a harmless answer all the same.
        TABLE.iter().find(|command| command.verb == self).unwrap_or(&TABLE[0])
    }
}

/// The command of this name.
pub fn by_id(id: &str) -> Option<&'static Command> {
    TABLE.iter().find(|command| command.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_verb_explains_itself() {
        let ids: BTreeSet<_> = TABLE.iter().map(|command| command.id).collect();
        let verbs: BTreeSet<_> = TABLE.iter().map(|command| command.verb).collect();
        assert_eq!((ids.len(), verbs.len()), (TABLE.len(), TABLE.len()));
        assert!(TABLE.iter().all(|command| !command.doc.is_empty() && command.verb.command().id == command.id));
    }
}
