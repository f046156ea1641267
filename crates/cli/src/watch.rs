//! `runs --watch`: a live view of runs and alarms on a terminal.
//!
//! Threads look, another draws: a store that hangs leaves the keys alive, the alarms coming and what was seen of the
//! runs on the screen.

mod screen;
mod view;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;

use self::screen::{Move, Screen};
use crate::exit::{Exit, refuse_with};
use crate::output;
use crate::run_source::Source;
use crate::signals;

/// How often is looked, at most.
const EVERY: Duration = Duration::from_secs(2);
/// A look that takes long is made less often, so that looking costs a tenth of its process at most.
const SHARE: u32 = 10;
/// How long a key may wait for its answer.
const KEYS: Duration = Duration::from_millis(250);

/// # Errors
/// Exit 2: standard output or input is none.
pub fn require_terminal() -> Result<()> {
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Usage,
        "--watch needs a terminal",
        "for scripts and pipes: runvault runs --json STORE",
    ))
}

/// Shows it until q, Ctrl-C or a signal; the terminal is then as it was.
///
/// # Errors
/// The terminal's.
pub fn run(source: Source, store: &Path) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    signals::on_first(move |_| told.store(true, Ordering::SeqCst))?;
    let looks = look(source)?;
    // Restores the terminal after a panic too.
    let mut terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
    let shown = show(&mut terminal, &looks, Screen::of(output::shown(store)), &ended);
    ratatui::restore();
    // Who still looks writes nothing, and ends with the process.
    shown
}

fn show(
    terminal: &mut DefaultTerminal,
    looks: &Receiver<Look>,
    mut screen: Screen,
    ended: &AtomicBool,
) -> Result<()> {
    while !ended.load(Ordering::SeqCst) {
        while let Ok(look) = looks.try_recv() {
            match look {
                Look::Runs(Ok(runs)) => screen.saw(runs, Instant::now()),
                Look::Runs(Err(error)) => screen.failed(&crate::exit::chain(&error)),
                Look::Alarms(alarms) => screen.seen.alarms = alarms,
            }
        }
        terminal.draw(|frame| view::draw(frame, &mut screen, Instant::now()))?;
        if event::poll(KEYS)? && is_end(&event::read()?, &mut screen) {
            break;
        }
    }
    Ok(())
}

/// Whether it asks for the end; what it asks for otherwise is done.
fn is_end(event: &Event, screen: &mut Screen) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind != KeyEventKind::Press {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') => return key.modifiers.contains(KeyModifiers::CONTROL),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll(Move::Lines(-1)),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(Move::Lines(1)),
        KeyCode::PageUp => screen.scroll(Move::Pages(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => screen.scroll(Move::Pages(1)),
        KeyCode::Home => screen.scroll(Move::Top),
        KeyCode::End => screen.scroll(Move::Bottom),
        _ => {}
    }
    false
}

/// What a thread has found.
enum Look {
    Runs(Result<Vec<Value>>),
    Alarms(Vec<Value>),
}

fn look(source: Source) -> Result<Receiver<Look>> {
    let (tell, told) = channel();
    let source = Arc::new(source);
    let (other, tell_other) = (Arc::clone(&source), tell.clone());
    Builder::new().name("look-runs".into()).spawn(move || again(&tell, || Look::Runs(source.runs())))?;
    Builder::new()
        .name("look-alarms".into())
        .spawn(move || again(&tell_other, || Look::Alarms(other.alarms())))?;
    Ok(told)
}

fn again(tell: &Sender<Look>, look: impl Fn() -> Look) {
    loop {
        let begun = Instant::now();
        if tell.send(look()).is_err() {
            return;
        }
        std::thread::sleep(EVERY.max(begun.elapsed() * SHARE));
    }
}
