//! One line of cells, filled from the left; nothing in it can be wider than its room.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::ui::text;

#[derive(Debug)]
pub struct Row {
    spans: Vec<Span<'static>>,
    left: usize,
    ellipsis: &'static str,
}

impl Row {
    pub fn new(width: usize, ellipsis: &'static str) -> Self {
        Self { spans: Vec::new(), left: width, ellipsis }
    }

    /// Cells that are still free.
    pub fn left(&self) -> usize {
        self.left
    }

    /// A column of exactly `width` cells and a blank behind it.
    pub fn cell(mut self, content: &str, width: usize, style: Style) -> Self {
        let width = width.min(self.left);
        self.spans.push(Span::styled(text::pad(content, width, self.ellipsis), style));
        self.left -= width;
        self.blank()
    }

    /// A column with its content at the right edge.
    pub fn number(mut self, content: &str, width: usize, style: Style) -> Self {
        let width = width.min(self.left);
        self.spans.push(Span::styled(text::pad_left(content, width), style));
        self.left -= width;
        self.blank()
    }

    fn blank(mut self) -> Self {
        if self.left > 0 {
            self.spans.push(Span::raw(" "));
            self.left -= 1;
        }
        self
    }

    /// As many cells as the content needs.
    pub fn text(mut self, content: &str, style: Style) -> Self {
        let content = text::cut(content, self.left, self.ellipsis);
        self.left -= text::width(&content).min(self.left);
        self.spans.push(Span::styled(content, style));
        self
    }

    /// Content at the right edge of the line; left out when there is no room for it.
    pub fn right(mut self, content: &str, style: Style) -> Self {
        let width = text::width(content);
        if width <= self.left {
            self.spans.push(Span::raw(" ".repeat(self.left - width)));
            self.left = 0;
            self.spans.push(Span::styled(text::printable(content).into_owned(), style));
        }
        self
    }

    /// The rest of the line, filled up.
    pub fn rest(mut self, content: &str, style: Style) -> Self {
        self.spans.push(Span::styled(text::pad(content, self.left, self.ellipsis), style));
        self.left = 0;
        self
    }

    pub fn span(mut self, span: Span<'static>) -> Self {
        let width = text::width(&span.content);
        if width <= self.left {
            self.left -= width;
            self.spans.push(span);
        }
        self
    }

    pub fn line(self) -> Line<'static> {
        Line::from(self.spans)
    }
}
