//! The live view: the board, drawn ten times a second on the terminal's other screen.
//!
//! It draws and reads keys on a thread of its own, so that a slow terminal slows nobody down. Dropping it restores the
//! terminal, whatever the reason.

mod page;

use super::board::Board;
use super::{Failure, Interrupts};
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{QueueableCommand as _, queue};
use page::{Line, Style};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// From one drawing to the next.
const FRAME: Duration = Duration::from_millis(100);

/// Whether the terminal can move its cursor.
pub(super) fn can_show() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// The view while it is on.
#[derive(Debug)]
pub(super) struct Live {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _screen: Screen,
}

impl Live {
    pub(super) fn start(board: Arc<Board>, interrupts: &Interrupts) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure(format!("cannot draw on this terminal, try --plain: {error}"));
        let screen = Screen::enter().map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (until, pressed) = (Arc::clone(&ended), Arc::clone(&interrupts.pressed));
        let draw = move || {
            while !until.load(Ordering::Relaxed) {
                // What cannot be drawn now may be in a moment; the show goes on without.
                let _ = draw(&board);
                wait_for_key(&pressed);
            }
        };
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(draw).map_err(failed)?;
        Ok(Self { ended, thread: Some(thread), _screen: screen })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The terminal's other screen, without a cursor and without echo.
#[derive(Debug)]
struct Screen;

impl Screen {
    fn enter() -> std::io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self; // from here on, dropping it restores what was changed
        let mut out = std::io::stdout().lock();
        queue!(out, EnterAlternateScreen, Hide)?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        // There is nobody left to tell.
        let _ = queue!(out, ResetColor, Show, LeaveAlternateScreen);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}

/// Waits for the next drawing; meanwhile q, Esc or Ctrl-C ends the show.
fn wait_for_key(pressed: &Notify) {
    match crossterm::event::poll(FRAME) {
        Ok(false) => {}
        Ok(true) => match crossterm::event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                let control_c =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    pressed.notify_one();
                }
            }
            _ => {}
        },
        // No keyboard.
        Err(_) => std::thread::sleep(FRAME),
    }
}

fn draw(board: &Board) -> std::io::Result<()> {
    let (width, height) = size()?;
    let lines = page::page(&board.state(), usize::from(height));
    let mut frame = Vec::new();
    frame.queue(BeginSynchronizedUpdate)?;
    for (row, line) in (0..height).zip(&lines) {
        frame.queue(MoveTo(0, row))?;
        put(&mut frame, line, usize::from(width))?;
        frame.queue(Clear(ClearType::UntilNewLine))?;
    }
    if lines.len() < usize::from(height) {
        frame.queue(MoveTo(0, lines.len() as u16))?.queue(Clear(ClearType::FromCursorDown))?;
    }
    frame.queue(EndSynchronizedUpdate)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&frame)?;
    out.flush()
}

/// One line, cut at the edge.
fn put(frame: &mut Vec<u8>, line: &Line, mut room: usize) -> std::io::Result<()> {
    for (style, text) in line {
        let text: String = text.chars().take(room).collect();
        room -= text.chars().count();
        match style {
            Style::Plain => {}
            Style::Bold => queue!(frame, SetAttribute(Attribute::Bold))?,
            Style::Dim => queue!(frame, SetAttribute(Attribute::Dim))?,
            Style::Good => queue!(frame, SetForegroundColor(Color::Green))?,
            Style::Bad => queue!(frame, SetForegroundColor(Color::Red))?,
            Style::Notable => queue!(frame, SetForegroundColor(Color::Yellow))?,
        }
        queue!(frame, Print(text), ResetColor, SetAttribute(Attribute::Reset))?;
    }
    Ok(())
}
