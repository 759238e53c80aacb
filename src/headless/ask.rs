//! Decisions without a screen: when a run waits for one, what can be done stands in numbered lines, and a number with Enter
//! chooses. The verbs, their questions and their danger are those of the cockpit.

use crate::engine::Command;
use crate::model::RunModel;
use crate::ui::command::Verb;
use crate::ui::glyph::Glyphs;
use crate::ui::keymap::Keymap;
use crate::ui::layout::Layouts;
use crate::ui::verbs::{self, Order};
use crate::ui::{Screen, UiError};

/// What may help a run that waits, the most helpful first.
const VERBS: [Verb; 4] = [Verb::Recover, Verb::AcceptHostKey, Verb::Retry, Verb::Skip];

/// The conversation, between two lines of input.
pub struct Ask {
    screen: Screen,
    state: State,
}

enum State {
    /// Nothing is asked.
    Quiet,
    Choose(Vec<Order>),
    /// This one is chosen, and has to be agreed to.
    Agree(Order),
}

impl Ask {
    /// `agreed`: changes are not asked about.
    ///
    /// # Errors
    /// When the tables that come with the program are wrong; tests prove that they are not.
    pub fn new(agreed: bool) -> Result<Self, UiError> {
        let mut screen = Screen::new(Keymap::load(None)?, Layouts::embedded()?, Glyphs::ASCII);
        screen.agreed = agreed;
        Ok(Self { screen, state: State::Quiet })
    }

    /// The run waits: what can be done about it.
    pub fn begin(&mut self, model: &RunModel) -> Vec<String> {
        let possible = |verb: &Verb| verbs::enabled(*verb, &self.screen, model).is_ok();
        let orders = VERBS.into_iter().filter(possible).filter_map(|verb| verbs::order(verb, &self.screen, model));
        let orders: Vec<Order> = orders.collect();
        let mut lines = vec!["What now?".to_owned()];
        for (number, order) in orders.iter().enumerate() {
            let about = order.body.first().map_or_else(String::new, |first| format!(" {first}"));
            lines.push(format!("  {} {}{about}", number + 1, order.title));
        }
        lines.push(format!("  {} Leave; `bartizan run --resume` comes back to it.", orders.len() + 1));
        lines.push(format!("Choose 1 to {}, then Enter [wait]:", orders.len() + 1));
        self.state = State::Choose(orders);
        lines
    }

    /// Something else decided meanwhile.
    pub fn over(&mut self) {
        self.state = State::Quiet;
    }

    /// A line of input: what to say to it, and what to ask of the engine.
    pub fn answer(&mut self, line: &str, model: &RunModel) -> (Vec<String>, Option<Command>) {
        let line = line.trim();
        match std::mem::replace(&mut self.state, State::Quiet) {
            State::Quiet => (vec!["Nothing is asked now.".to_owned()], None),
            State::Choose(orders) if line.is_empty() => {
                self.state = State::Choose(orders);
                (vec!["It waits. Type a number when you have decided.".to_owned()], None)
            }
            State::Choose(mut orders) => {
                let count = orders.len();
                match line.parse::<usize>() {
                    Ok(number) if number == count + 1 => (vec!["Leaving.".to_owned()], Some(Command::Detach)),
                    Ok(number) if (1..=count).contains(&number) => {
                        let order = orders.swap_remove(number - 1);
                        if !order.asks(self.screen.agreed) {
                            return (Vec::new(), Some(order.command));
                        }
                        let lines = question(&order);
                        self.state = State::Agree(order);
                        (lines, None)
                    }
                    _ => {
                        self.state = State::Choose(orders);
                        (vec![format!("{line:?} is none of them: choose 1 to {} [wait]:", count + 1)], None)
                    }
                }
            }
            State::Agree(order) => {
                let agreed = match &order.name {
                    Some(name) => !line.is_empty() && name == line,
                    None => matches!(line.to_lowercase().as_str(), "y" | "yes"),
                };
                if agreed {
                    return (vec!["Done as you say.".to_owned()], Some(order.command));
                }
                let mut lines = vec!["Not done.".to_owned()];
                lines.extend(self.begin(model));
                (lines, None)
            }
        }
    }
}

fn question(order: &Order) -> Vec<String> {
    let mut lines = vec![order.title.clone()];
    lines.extend(order.body.iter().map(|line| format!("  {line}")));
    lines.push(match &order.name {
        Some(name) => format!("This destroys. Type {name} and Enter to do it [no]:"),
        None => "yes or no [no]:".to_owned(),
    });
    lines
}
