//! Drawing the live view. Every text of the store was made visible before it gets here.

use std::ops::Range;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use serde_json::Value;

use super::screen::Screen;
use crate::output::{count, size};
use crate::run_rows::{self, cycle, last_write, name, number, rate, text, waits_for};

/// A column and its greatest width.
const COLUMNS: [(&str, usize); 9] = [
    ("RUN", 42),
    ("STATE", 9),
    ("CYCLE", 9),
    ("SIZE", 10),
    ("NOW", 12),
    ("MEAN", 12),
    ("FILES", 8),
    ("LAST WRITE", 20),
    ("WAITS FOR", usize::MAX),
];
/// How wide a terminal is on which a run takes one line.
const WIDE: u16 = 130;
/// The columns that stay on a run's first line where it takes two.
const FIRST: usize = 4;
/// Before what stands on its second.
const INDENT: &str = "    ";
/// Between two columns.
const SPACE: &str = "  ";

pub fn draw(frame: &mut Frame<'_>, screen: &mut Screen, now: Instant) {
    let area = frame.area();
    // Alarms take a third at most: the runs stay visible.
    let alarms = u16::try_from(screen.seen.alarms.len()).unwrap_or(u16::MAX).min(area.height / 3);
    let [head, middle, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(alarms),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let lines = lines_of_a_run(body);
    // The table's head is as high as a run.
    screen.page = (usize::from(body.height) / lines.len()).saturating_sub(1);
    screen.scroll(super::Move::Lines(0));
    frame.render_widget(headline(screen, now), head);
    frame.render_widget(alarm_lines(screen, usize::from(alarms)), middle);
    frame.render_widget(runs(screen, &lines), body);
    frame.render_widget(footline(screen), foot);
}

fn headline(screen: &Screen, now: Instant) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut parts = vec![Span::styled(screen.store.clone(), bold)];
    let Some(at) = screen.at else {
        parts.push(Span::raw("   looking"));
        return Line::from(parts);
    };
    let runs = &screen.seen.runs;
    let sealed = runs.iter().filter(|run| run["state"] == "sealed").count();
    let rates: u64 = runs.iter().filter_map(|run| screen.rate(run)).sum();
    parts.push(Span::raw(format!(
        "   {}, {sealed} sealed   {}   {} s ago",
        count(runs.len() as u64, "run"),
        rate(rates),
        now.saturating_duration_since(at).as_secs()
    )));
    Line::from(parts)
}

fn alarm_lines(screen: &Screen, room: usize) -> Paragraph<'static> {
    let alarms = &screen.seen.alarms;
    // The last line says how many more there are.
    let shown = if alarms.len() > room { room.saturating_sub(1) } else { room };
    let mut lines: Vec<Line<'static>> = alarms
        .iter()
        .take(shown)
        .map(|alarm| {
            let [alarm, about, says] = run_rows::alarm(&screen.seen, alarm);
            let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
            Line::from(vec![Span::styled(format!("! {alarm}"), red), Span::raw(format!("  {about}  {says}"))])
        })
        .collect();
    if alarms.len() > shown {
        lines.push(Line::raw(format!("! and {}", count((alarms.len() - shown) as u64, "more alarm"))));
    }
    Paragraph::new(lines)
}

/// The columns on each line of a run: nothing is left out where the terminal is narrow.
fn lines_of_a_run(area: Rect) -> Vec<Range<usize>> {
    let ends = if area.width >= WIDE { vec![COLUMNS.len()] } else { vec![FIRST, COLUMNS.len()] };
    ends.into_iter().scan(0, |start, end| Some(std::mem::replace(start, end)..end)).collect()
}

fn runs(screen: &Screen, lines: &[Range<usize>]) -> Paragraph<'static> {
    let shown: Vec<&Value> = screen.seen.runs.iter().skip(screen.first).take(screen.page).collect();
    let rows: Vec<_> = shown.iter().map(|run| cells(screen, run)).collect();
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|n| {
        let (head, most) = COLUMNS[n];
        rows.iter().map(|row| Span::raw(row[n].as_str()).width()).max().unwrap_or(0).max(head.len()).min(most)
    });
    let row = |cells: [String; COLUMNS.len()], style: [Style; COLUMNS.len()]| {
        let line = |(at, columns): (usize, &Range<usize>)| {
            let indent = Span::raw(if at == 0 { "" } else { INDENT });
            let padded = columns
                .clone()
                .flat_map(|n| [Span::styled(padded(&cells[n], widths[n]), style[n]), Span::raw(SPACE)]);
            Line::from_iter(std::iter::once(indent).chain(padded))
        };
        lines.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let head = row(
        COLUMNS.map(|(head, _)| head.to_owned()),
        [Style::new().add_modifier(Modifier::DIM); COLUMNS.len()],
    );
    let body = shown.iter().zip(rows).flat_map(|(run, cells)| {
        row(cells, COLUMNS.map(|(head, _)| if head == "STATE" { of_state(run) } else { Style::new() }))
    });
    Paragraph::new(head.into_iter().chain(body).collect::<Vec<_>>())
}

/// Cut or filled to a width.
fn padded(text: &str, width: usize) -> String {
    let mut fits = String::new();
    let mut left = width;
    for c in text.chars() {
        let Some(rest) = left.checked_sub(Span::raw(c.to_string()).width()) else { break };
        fits.push(c);
        left = rest;
    }
    fits + &" ".repeat(left)
}

/// In the order of [`COLUMNS`].
fn cells(screen: &Screen, run: &Value) -> [String; COLUMNS.len()] {
    [
        name(run),
        text(run, "state"),
        cycle(run),
        number(run, "bytes").map(size),
        screen.rate(run).filter(|_| run["state"] != "sealed").map(rate),
        number(run, "bytes_per_second").map(rate),
        number(run, "files").map(|n| n.to_string()),
        last_write(run),
        waits_for(run),
    ]
    .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
}

fn of_state(run: &Value) -> Style {
    let color = match run["state"].as_str().unwrap_or_default() {
        _ if run["trouble"].is_string() => Color::Red,
        "damaged" => Color::Red,
        "silent" => Color::Yellow,
        "open" | "draining" | "sealing" => Color::Green,
        _ if run["complete"] == false => Color::Yellow,
        _ => Color::Reset,
    };
    Style::new().fg(color)
}

fn footline(screen: &Screen) -> Line<'static> {
    if let Some(error) = &screen.error {
        return Line::styled(format!("no answer: {error}"), Style::new().fg(Color::Red));
    }
    let keys = "q quit   arrows, PgUp, PgDn, Home, End: move";
    let runs = screen.seen.runs.len();
    let last = (screen.first + screen.page).min(runs);
    let place = if last < runs || screen.first > 0 {
        format!("   {} to {last} of {runs}", screen.first + 1)
    } else {
        String::new()
    };
    Line::styled(format!("{keys}{place}"), Style::new().add_modifier(Modifier::DIM))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen, Instant::now())).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn screen() -> Screen {
        let mut runs = vec![
            json!({ "run": "00", "name": "a\u{1b}[2J\u{9b}\n", "state": "open", "files": 3, "bytes": 2048, "cycle": 2,
                "cycles": 151, "bytes_per_second": 1024, "last_write": "2026-01-01T00:00:00Z",
                "waits_for": "cycle 3 of 151" }),
            json!({ "run": "01", "name": null, "state": "sealed", "files": 1, "bytes": 1,
                "sealed": "2026-01-02T00:00:00Z", "complete": false, "missing": 1, "named": ["L003 C112.1"] }),
        ];
        runs.extend(
            (2..90).map(|n| json!({ "run": format!("{n:02}"), "state": "sealed", "sealed": "2025" })),
        );
        let alarms = vec![
            json!({ "alarm": "stuck", "run": "00", "text": "nothing was written for 5h" }),
            json!({ "alarm": "slow", "run": null, "text": "\u{1b}]0;x\u{7}" }),
        ];
        let mut screen = Screen::of("/srv/store".to_owned());
        screen.saw(runs, Instant::now());
        screen.seen.alarms = alarms;
        screen
    }

    #[test]
    fn runs_and_alarms_are_shown_and_no_name_steers_the_terminal() {
        let lines = drawn(&mut screen(), 150, 12);
        assert_eq!(lines[0], "/srv/store   90 runs, 89 sealed   0 B/s   0 s ago");
        assert_eq!(lines[1], "! stuck  a\\x1b[2J\\xc2\\x9b\\x0a  nothing was written for 5h");
        assert_eq!(lines[2], "! slow    \\x1b]0;x\\x07");
        assert!(lines[3].starts_with("RUN ") && lines[3].ends_with("WAITS FOR"), "{lines:?}");
        let first: Vec<&str> = lines[4].split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
        assert_eq!(
            first,
            [
                "a\\x1b[2J\\xc2\\x9b\\x0a",
                "open",
                "2/151",
                "2.0 KiB",
                "-",
                "1.0 KiB/s",
                "3",
                "2026-01-01T00:00:00Z",
                "cycle 3 of 151"
            ]
        );
        assert!(lines[5].starts_with("01 ") && lines[5].ends_with("incomplete: L003 C112.1"), "{lines:?}");
        assert!(lines[11].ends_with("1 to 7 of 90"), "{lines:?}");
        assert!(lines.iter().flat_map(|line| line.chars()).all(|c| !c.is_control()), "{lines:?}");
    }

    #[test]
    fn a_list_that_is_longer_moves_and_an_error_is_said() {
        let mut screen = screen();
        drawn(&mut screen, 80, 12);
        screen.scroll(super::super::Move::Bottom);
        screen.failed("it went\u{1b}");
        let lines = drawn(&mut screen, 130, 12);
        assert!(lines[10].starts_with("89 "), "{lines:?}");
        assert_eq!(lines[11], "no answer: it went\\x1b");
        // A larger window shows more of the end, not emptiness.
        let lines = drawn(&mut screen, 130, 30);
        assert!(lines[28].starts_with("89 ") && lines[4].starts_with("65 "), "{lines:?}");
    }

    #[test]
    fn eighty_columns_leave_nothing_out() {
        let mut screen = screen();
        let longest = "20260101_LH00123_0042_A22ABCDLT3_and_more_of_it";
        screen.seen.runs[0]["name"] = longest.into();
        screen.seen.runs[0]["last_write"] = "2026-01-01T00:00:00Z".into();
        let lines = drawn(&mut screen, 80, 13);
        let words = |line: &str| {
            line.split("  ").map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words(&lines[3]), ["RUN", "STATE", "CYCLE", "SIZE"]);
        assert_eq!(words(&lines[4]), ["NOW", "MEAN", "FILES", "LAST WRITE", "WAITS FOR"]);
        assert_eq!(words(&lines[5]), [&longest[..42], "open", "2/151", "2.0 KiB"]);
        assert_eq!(words(&lines[6]), ["-", "1.0 KiB/s", "3", "2026-01-01T00:00:00Z", "cycle 3 of 151"]);
        assert!(lines[8].ends_with("incomplete: L003 C112.1"), "{lines:?}");
        assert!(lines[12].ends_with("1 to 3 of 90"), "{lines:?}");
        screen.scroll(super::super::Move::Bottom);
        let lines = drawn(&mut screen, 80, 13);
        assert!(lines[9].starts_with("89 ") && lines[12].ends_with("88 to 90 of 90"), "{lines:?}");
    }

    #[test]
    fn any_size_of_the_terminal_is_one() {
        let mut screen = screen();
        for (width, height) in [(0, 0), (1, 1), (3, 2), (20, 3), (5, 40), (400, 5)] {
            drawn(&mut screen, width, height);
        }
        assert!(drawn(&mut screen, 40, 8)[3].contains("CYCLE"));
    }
}
