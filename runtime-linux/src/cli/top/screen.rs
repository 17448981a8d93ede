//! The live screen.

use super::rows::{COLUMNS, Order, cells, pick};
use super::{Source, TopArgs, notes};
use crate::cli::failure::Failure;
use crate::counters::Report;
use crate::counters::words::{bytes, rate};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use std::io;
use std::time::{Duration, Instant};

const KEYS: &str = "q quit   s sort   / filter   ↑↓ scroll";
const KEYS_FILTER: &str = "Enter keep   Esc clear";

/// What is on the screen.
struct Screen {
    report: Report,
    /// Why the report is an old one.
    trouble: Option<String>,
    source: String,
    order: Order,
    filter: String,
    /// The filter is being typed.
    typing: bool,
    place: TableState,
}

/// Draws until the user quits.
pub fn run(source: Source, report: Report, args: &TopArgs, interval: Duration) -> io::Result<()> {
    let screen = Screen {
        report,
        trouble: None,
        source: match &source {
            Source::Kernel(_) => "kernel".into(),
            Source::Agent(address) => format!("agent at {address}"),
        },
        order: args.sort,
        filter: args.filter.clone(),
        typing: false,
        place: TableState::default(),
    };
    let mut terminal = ratatui::try_init()?;
    let result = turn(&mut terminal, source, screen, interval);
    ratatui::try_restore()?;
    result
}

fn turn(terminal: &mut DefaultTerminal, mut source: Source, mut screen: Screen, interval: Duration) -> io::Result<()> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(next.saturating_duration_since(Instant::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && !screen.key(key)
        {
            return Ok(());
        }
        if Instant::now() >= next {
            match source.look() {
                Ok(report) => (screen.report, screen.trouble) = (report, None),
                Err(Failure::Input(text) | Failure::Operation(text)) => screen.trouble = Some(text),
                Err(_) => {}
            }
            next = Instant::now() + interval;
        }
    }
}

impl Screen {
    /// `false`: the user wants to leave.
    fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Enter => self.typing = false,
            KeyCode::Backspace if self.typing => _ = self.filter.pop(),
            KeyCode::Char(c) if self.typing && !control => self.filter.push(c),
            KeyCode::Char('q') => return false,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') | KeyCode::Tab => self.order = self.order.next(),
            KeyCode::Down => self.place.scroll_down_by(1),
            KeyCode::Up => self.place.scroll_up_by(1),
            KeyCode::PageDown => self.place.scroll_down_by(20),
            KeyCode::PageUp => self.place.scroll_up_by(20),
            _ => {}
        }
        true
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let notes: Vec<String> = match &self.trouble {
            Some(trouble) => trouble.lines().map(str::to_owned).collect(),
            None => notes(&self.report).map(str::to_owned).collect(),
        };
        let heights = [1, u16::try_from(notes.len()).unwrap_or(0)].map(Constraint::Length);
        let [head, remarks, body, foot] =
            Layout::vertical([heights[0], heights[1], Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        let rows = pick(&self.report, &self.filter, self.order);
        let sum = |value: fn(&crate::counters::Row) -> Option<f64>| {
            rows.iter().map(|r| value(r)).try_fold(0.0, |sum, value| value.map(|value| sum + value))
        };
        let title = format!(
            "natlet top   {} services   {} new/s   {}/s   {}",
            rows.len(),
            rate(sum(|r| r.connections_per_second)),
            bytes(sum(|r| r.bytes_per_second)),
            self.source
        );
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Paragraph::new(title).style(bold), head);
        frame.render_widget(Paragraph::new(notes.join("\n")), remarks);
        let heading = |(i, (name, order)): (usize, (&'static str, Option<Order>))| {
            let style = if order == Some(self.order) { bold.add_modifier(Modifier::UNDERLINED) } else { bold };
            Cell::new(aligned(i, name.to_owned())).style(style)
        };
        let header = Row::new(COLUMNS.into_iter().enumerate().map(heading)).style(Modifier::REVERSED);
        let lines = rows
            .iter()
            .map(|row| Row::new(cells(row).into_iter().enumerate().map(|(i, text)| Cell::new(aligned(i, text)))));
        let widths = [8, 9, 13, 9, 9, 9].map(Constraint::Length);
        let widths = [&[Constraint::Fill(1)][..], &widths].concat();
        let table = Table::new(lines, widths).header(header).row_highlight_style(Modifier::BOLD);
        frame.render_stateful_widget(table, body, &mut self.place);
        let keys = if self.typing { KEYS_FILTER } else { KEYS };
        let filter = match (self.typing, self.filter.as_str()) {
            (false, "") => String::new(),
            (typing, filter) => format!("   filter: {filter}{}", if typing { "_" } else { "" }),
        };
        frame.render_widget(Paragraph::new(format!("{keys}{filter}")), foot);
    }
}

/// Names flush left, numbers flush right.
fn aligned(column: usize, text: String) -> Text<'static> {
    let alignment = if column < 2 { Alignment::Left } else { Alignment::Right };
    Text::from(Line::from(text)).alignment(alignment)
}
